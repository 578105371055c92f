"""The system on one machine: PostgreSQL and Valkey from Python wheels, the API and the worker, no Docker."""
