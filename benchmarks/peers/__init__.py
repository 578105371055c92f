"""What else could be used, each in a virtual environment of its own, and how the benchmark talks to it."""
