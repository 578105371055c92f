"""How every process ends: its exit status, its last sentence, and what it may print."""
