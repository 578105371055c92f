"""What both the API and the worker need: settings, database, tables, the outbox, the doorbell, logs."""
