"""The facts of one moment, read from the database on one snapshot."""
