"""Whether a session that opens now may write: one that is open keeps the default of when it was opened."""

# True where it may not. What is set for the database or the role counts as it is set now; what the server's
# configuration or the client says, as this session has it.
NEW_SESSIONS_ARE_READ_ONLY = """(
    EXISTS (
        SELECT FROM pg_db_role_setting
        WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
            AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user))
            AND 'default_transaction_read_only=on' = ANY(setconfig)
    ) OR EXISTS (
        SELECT FROM pg_settings
        WHERE name = 'default_transaction_read_only' AND setting = 'on'
            AND source NOT IN ('global', 'database', 'user', 'database user')
    ))"""
