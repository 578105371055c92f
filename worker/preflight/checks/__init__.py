"""What is looked at, each kind in a module of its own; PostgreSQL in transactions that are READ ONLY."""
