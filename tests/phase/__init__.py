"""The cutover: the phase, its gates, the reads that it moves."""
