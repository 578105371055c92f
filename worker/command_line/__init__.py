"""What all commands share: their grammar, their output, their signals and their exit status."""
