"""Rollback: what it takes away, what it keeps, and that it costs nothing to have been here."""
