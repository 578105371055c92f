"""Undoing phase 1: removing the rows of `project_collections` that we made."""
