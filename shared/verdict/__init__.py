"""Where the migration stands and what to do next, decided from facts alone: no database, no log, no page."""
