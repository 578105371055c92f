"""Backfill: events for the collections that `project_collections` does not show, through the outbox."""
