"""How a process connects to PostgreSQL, what it requires of a session, and what its errors mean."""
