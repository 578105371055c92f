"""The doorbell: how a process connects to Redis, what it calls its keys, and how it rings."""
