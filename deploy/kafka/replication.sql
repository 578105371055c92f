-- What Debezium needs of PostgreSQL: a publication of what is appended to the outbox, and a role that may read it.
--
-- Run it as the owner of the tables, who must be allowed to create roles, after `alembic upgrade head`:
--
--     psql --set=ON_ERROR_STOP=1 --file=deploy/kafka/replication.sql "$OWNER_URL"
--
-- then give the connector a login of its own, as a superuser (before PostgreSQL 16), or as a role that has
-- CREATEROLE and REPLICATION; managed services have a role of their own in place of REPLICATION:
--
--     CREATE ROLE sync_debezium LOGIN REPLICATION PASSWORD '…' IN ROLE collection_sync_replication;
--
-- It may be run any number of times. The server needs wal_level = logical, which takes a restart.
--
-- REPLICATION is more than these grants: whoever has it can decode every change of every table in this database,
-- and, where pg_hba.conf has a line for the database "replication", copy the whole server. So give this login a
-- line for its one database there, from the connector's addresses, and none for "replication".

BEGIN;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'collection_sync_replication') THEN
        CREATE ROLE collection_sync_replication NOLOGIN;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO collection_sync_replication', current_database());
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'collection_sync_outbox') THEN
        CREATE PUBLICATION collection_sync_outbox;
    END IF;
END
$$;

GRANT USAGE ON SCHEMA public TO collection_sync_replication;
REVOKE ALL ON outbox_events FROM collection_sync_replication;
-- For the snapshot, which is what was pending when the slot was made.
GRANT SELECT ON outbox_events TO collection_sync_replication;

-- Inserts only: that the worker deletes what it applied is nobody's event.
ALTER PUBLICATION collection_sync_outbox SET TABLE outbox_events;
ALTER PUBLICATION collection_sync_outbox SET (publish = 'insert');

COMMIT;
