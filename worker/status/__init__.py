"""Where the migration stands, and what to type next: from the database alone, within a second."""
