"""Audit: whether `project_collections` shows exactly what `collections` holds, and repairing it."""
