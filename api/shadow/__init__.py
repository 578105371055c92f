"""Lists from both sides: a sample is compared once the user has his answer. See docs/phases.md."""
