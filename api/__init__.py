"""The collections endpoints. They write legacy rows and outbox events, never `project_collections`."""
