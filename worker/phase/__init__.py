"""The cutover's phase as operators see and turn it: gates, comparisons, the cost of going back."""
