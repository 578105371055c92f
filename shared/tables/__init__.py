"""The tables as SQLAlchemy knows them: the monolith's, and ours."""
