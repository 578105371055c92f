"""What it costs, measured on real processes."""
