"""Capture in the database: triggers on `collections` that see the writers that append no event."""
