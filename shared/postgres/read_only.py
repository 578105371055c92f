"""Whether a session that opens now may write: one that is open keeps the default of when it was opened."""

# True where it may not. What the client asked for counts first, then what is set for the login and the
# database as it is set now, the narrowest first, then the server's own configuration.
NEW_SESSIONS_ARE_READ_ONLY = """coalesce(
        (
            SELECT setting = 'on' FROM pg_settings
            WHERE name = 'default_transaction_read_only' AND source IN ('client', 'session')
        ), (
            SELECT split_part(one, '=', 2)::boolean FROM pg_db_role_setting, unnest(setconfig) AS one
            WHERE split_part(one, '=', 1) = 'default_transaction_read_only'
                AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
                AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
            ORDER BY setrole = 0, setdatabase = 0 LIMIT 1
        ), (
            SELECT setting = 'on' FROM pg_settings
            WHERE name = 'default_transaction_read_only'
                AND source NOT IN ('global', 'database', 'user', 'database user')
        ), false
    )"""
