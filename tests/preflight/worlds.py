"""Databases that would bite: what somebody did there, which check must say so, and in which words.

To add one: a name, the SQL, the check, how bad it is, words of its sentence. `{database}`, `{api}`,
`{worker}` and `{operator}` stand for the names of the database and the logins.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """What was done to a fresh database, and what of it preflight says.

    `cure` is what the printed fix must hold; where it is "", the whole fix cures the world as it stands, and
    where it is None, it is no SQL for this database. `undo` takes back what would outlast the database.
    """

    sql: str
    check: str
    state: str
    words: str
    cure: str | None = ""
    undo: str = ""


DO_NOTHING = "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
WORLDS = {
    "default_transaction_read_only": World(
        "ALTER DATABASE {database} SET default_transaction_read_only = on",
        "defaults", "stop", "no write succeeds",
    ),
    "read-only for a login": World(
        "ALTER ROLE {api} SET default_transaction_read_only = on",
        "defaults", "stop", "for ROLE {api}",
    ),
    "read-only as the session finds it": World(
        "ALTER DATABASE {database} SET default_transaction_read_only = on",
        "writable", "stop", "read-only",
    ),
    "another isolation": World(
        "ALTER DATABASE {database} SET default_transaction_isolation = 'repeatable read'",
        "defaults", "warn", "default_transaction_isolation is repeatable read",
    ),
    "a search path past the tables": World(
        "ALTER ROLE {worker} SET search_path = elsewhere",
        "defaults", "stop", "are not found",
    ),
    "a search path that leads to other tables first": World(
        "CREATE SCHEMA before; CREATE TABLE before.collections ();"
        " ALTER DATABASE {database} SET search_path = before, public",
        "search_path", "stop", "collections of before hides that of public", None,
    ),
    "a schema in which everybody may create": World(
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "schemas", "warn", "Everybody may create in schema public",
    ),
    "a capture whose triggers are gone": World(
        "INSERT INTO capture_settings (mode, definition, installed_by) VALUES ('count', 'x', 'x')",
        "capture", "warn", "gone or disabled: collection_sync_capture_insert", None,
    ),
    "a view that is away": World(
        "DROP VIEW visible_collections",
        "reads", "stop", "no visible_collections", None,
    ),
    "a view's function that is away": World(
        "DROP VIEW visible_collections; DROP FUNCTION collections_of_project",
        "reads", "stop", "no collections_of_project", None,
    ),
    "a view's function of another release": World(
        "UPDATE pg_proc SET prosrc = 'BEGIN END' WHERE proname = 'collections_of_project'",
        "reads", "stop", "is not this release's",
    ),
    "a view's function with two snapshots": World(
        "ALTER FUNCTION collections_of_project VOLATILE",
        "reads", "stop", "is not this release's",
    ),
    "a view's function for everybody": World(
        "GRANT EXECUTE ON FUNCTION collections_of_project TO PUBLIC",
        "reads", "warn", "Everybody who may connect may read collections",
    ),
    "a view's function for nobody": World(
        "REVOKE EXECUTE ON FUNCTION collections_of_project FROM collection_sync_api",
        "reads", "stop", "collection_sync_api may not EXECUTE collections_of_project", None,
    ),
    "no row of the phase": World(
        "DELETE FROM migration_phase",
        "reads", "warn", "The row of migration_phase is gone",
    ),
    "row-level security beneath the view": World(
        "ALTER TABLE project_collections ENABLE ROW LEVEL SECURITY",
        "reads", "warn", "who may read it sees every row",
    ),
    "row-level security that its owner obeys": World(
        "ALTER TABLE collections ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "reads", "warn", "it shows what the policies show",
    ),
    "a short timeout": World(
        "ALTER DATABASE {database} SET statement_timeout = '1s'",
        "defaults", "warn", "statement_timeout is 1s",
    ),
    "a timeout of idle sessions": World(
        "ALTER ROLE {api} IN DATABASE {database} SET idle_session_timeout = '1min'",
        "defaults", "warn", "opened anew",
    ),
    "sessions of a replica's": World(
        "ALTER ROLE {worker} SET session_replication_role = replica",
        "defaults", "stop", "foreign keys are not kept",
    ),
    "acknowledged before the disk": World(
        "ALTER DATABASE {database} SET synchronous_commit = off",
        "durability", "warn", "takes back writes", None,
    ),
    "the release before's schema": World(
        "UPDATE collection_sync_version SET version_num = '0001'",
        "schema", "stop", "is at revision 0001", None,
    ),
    "never migrated": World(
        "DROP TABLE collection_sync_version",
        "schema", "stop", "never migrated", None,
    ),
    "a table that is away": World(
        "ALTER TABLE project_collections RENAME TO away",
        "search_path", "stop", "no project_collections", None,
    ),
    "what is not looked at while a table is away": World(
        "ALTER TABLE project_collections RENAME TO away",
        "triggers", "warn", "could not look", None,
    ),
    "reads while a table is away": World(
        "ALTER TABLE project_collections RENAME TO away",
        "reads", "warn", "could not look", None,
    ),
    "reads before the migration ran": World(
        "DROP TABLE migration_phase CASCADE",
        "reads", "warn", "could not look", None,
    ),
    "a column that is away": World(
        "ALTER TABLE collections DROP COLUMN linked_question_ids",
        "columns", "stop", "collections lacks linked_question_ids", None,
    ),
    "a column that is too narrow": World(
        "ALTER TABLE project_collections ALTER research_context TYPE varchar(100)",
        "columns", "warn", "research_context is character varying(100) and collections.description text",
    ),
    "a column that rounds": World(
        "ALTER TABLE project_collections ALTER updated_at TYPE timestamptz(0)",
        "columns", "warn", "differs for ever",
    ),
    "a column without a time zone": World(
        "ALTER TABLE project_collections ALTER created_at TYPE timestamp",
        "columns", "warn", "created_at is timestamp without time zone",
    ),
    "an index that is away": World(
        "DROP INDEX outbox_events_claim_order",
        "indexes", "warn", "outbox_events_claim_order is missing",
    ),
    "an index that was never finished": World(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'outbox_events_of_aggregate'::regclass",
        "indexes", "warn", "is not valid",
    ),
    "a key of ours that is away": World(
        "ALTER TABLE applied_versions DROP CONSTRAINT applied_versions_pkey",
        "indexes", "stop", "applied_versions_pkey is missing",
    ),
    "a right that was taken away": World(
        "REVOKE DELETE ON outbox_events FROM collection_sync_worker",
        "roles", "stop", "collection_sync_worker lacks DELETE on outbox_events", None,
    ),
    "a column's right that was taken away": World(
        "REVOKE INSERT (color, icon) ON collections FROM collection_sync_api",
        "roles", "stop", "collection_sync_api lacks INSERT (color, icon) on collections", None,
    ),
    "a right on the target's sequence": World(
        "REVOKE USAGE ON SEQUENCE project_collections_id_seq FROM collection_sync_worker",
        "roles", "stop", "lacks USAGE on project_collections_id_seq", None,
    ),
    "no temporary tables": World(
        "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC, collection_sync_operator",
        "roles", "stop", "collection_sync_operator lacks TEMPORARY on database", None,
    ),
    "no schema": World(
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC, collection_sync_api",
        "roles", "stop", "collection_sync_api lacks USAGE on schema public", None,
    ),
    "a right that only dashboards need": World(
        "REVOKE SELECT ON audit_runs FROM collection_sync_reader",
        "roles", "warn", "collection_sync_reader lacks SELECT on audit_runs", None,
    ),
    "a login that inherits nothing": World(
        "ALTER ROLE {operator} NOINHERIT; REVOKE collection_sync_operator FROM {operator};"
        " GRANT collection_sync_operator TO {operator}",
        "logins", "stop", "does not inherit", None,
    ),
    "a password that has ended": World(
        "ALTER ROLE {api} VALID UNTIL '2020-01-01'",
        "logins", "stop", "The password of login {api} ended on 2020-01-01",
    ),
    "a password that will end": World(
        "DO $$ BEGIN EXECUTE format('ALTER ROLE {worker} VALID UNTIL %L', now() + interval '3 days'); END $$",
        "logins", "warn", "The password of login {worker} ends on",
    ),
    "row-level security": World(
        "ALTER TABLE collections ENABLE ROW LEVEL SECURITY",
        "row_security", "stop", "may hide rows from {worker}", "DISABLE ROW LEVEL SECURITY",
    ),
    "row-level security with a policy": World(
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON users USING (true)",
        "row_security", "stop", "users may hide rows from {api}", "DISABLE ROW LEVEL SECURITY",
    ),
    "a login of others that writes": World(
        "CREATE ROLE monolith LOGIN; GRANT UPDATE (tags) ON project_collections TO monolith",
        "other_writers", "warn", "monolith", None,
        undo="DROP OWNED BY monolith; DROP ROLE monolith",
    ),
    "a trigger elsewhere that writes": World(
        "CREATE FUNCTION copied() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN DELETE FROM project_collections; RETURN NULL; END';"
        " CREATE TRIGGER copies AFTER INSERT ON projects FOR EACH ROW EXECUTE FUNCTION copied()",
        "other_writers", "warn", "Trigger copies of projects runs copied",
    ),
    "a view for the target": World(
        "ALTER TABLE project_collections RENAME TO beneath;"
        " CREATE VIEW project_collections AS SELECT * FROM beneath",
        "kinds", "warn", "project_collections is a view", None,
    ),
    "an unlogged outbox": World(
        "ALTER TABLE outbox_events SET UNLOGGED",
        "unlogged", "stop", "outbox_events is unlogged",
    ),
    "no key on the target": World(
        "ALTER TABLE project_collections DROP CONSTRAINT project_collections_project_id_collection_id_key",
        "unique_key", "stop", "no unique key",
    ),
    "a deferrable key on the target": World(
        "ALTER TABLE project_collections DROP CONSTRAINT project_collections_project_id_collection_id_key,"
        " ADD CONSTRAINT late UNIQUE (project_id, collection_id) DEFERRABLE",
        "unique_key", "stop", "late is deferrable",
    ),
    "an invalid key on the target": World(
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = 'project_collections_project_id_collection_id_key'::regclass",
        "unique_key", "stop", "is not valid",
    ),
    "a key on a part of the target": World(
        "ALTER TABLE project_collections DROP CONSTRAINT project_collections_project_id_collection_id_key;"
        " CREATE UNIQUE INDEX part ON project_collections (project_id, collection_id) WHERE id > 7",
        "unique_key", "stop", "no unique key",
    ),
    "a column that nobody fills": World(
        "ALTER TABLE project_collections ADD COLUMN tenant integer NOT NULL",
        "unfilled", "stop", "project_collections.tenant takes no NULL", "ALTER tenant",
    ),
    "a column of the legacy table that nobody fills": World(
        "ALTER TABLE collections ADD COLUMN tenant integer NOT NULL",
        "unfilled", "stop", "collections.tenant takes no NULL", "ALTER tenant",
    ),
    "an id that fills itself no more": World(
        "ALTER TABLE project_collections ALTER COLUMN id DROP DEFAULT",
        "unfilled", "stop", "project_collections.id takes no NULL", "ALTER id",
    ),
    "a generated column": World(
        "ALTER TABLE project_collections ADD COLUMN size integer"
        " GENERATED ALWAYS AS (100 / length(research_context)) STORED",
        "unfilled", "warn", "project_collections.size is generated",
    ),
    "a generated column that we write": World(
        "ALTER TABLE collections DROP COLUMN color,"
        " ADD COLUMN color varchar GENERATED ALWAYS AS (collection_name) STORED",
        "unfilled", "stop", "collections.color is generated, and we write it",
    ),
    "a check": World(
        "ALTER TABLE project_collections ADD CONSTRAINT short CHECK (length(research_context) < 10)",
        "constraints", "warn", "short",
    ),
    "a key that others added": World(
        "CREATE UNIQUE INDEX once ON project_collections (collection_id)",
        "constraints", "warn", "UNIQUE INDEX once",
    ),
    "a constraint of the same kind": World(
        "ALTER TABLE collections ADD CONSTRAINT named UNIQUE (project_id, collection_name)",
        "constraints", "warn", "named",
    ),
    "NULL that the target refuses": World(
        "ALTER TABLE project_collections ALTER research_context SET NOT NULL",
        "constraints", "warn", "research_context takes no NULL",
    ),
    "a key that is checked at COMMIT": World(
        "ALTER TABLE project_collections ALTER CONSTRAINT project_collections_project_id_fkey"
        " DEFERRABLE INITIALLY DEFERRED",
        "deferrable", "warn", "is checked at COMMIT",
    ),
    "a child that holds": World(
        "CREATE TABLE notes (pc integer NOT NULL REFERENCES project_collections (id) ON DELETE RESTRICT)",
        "children", "warn", "Rows of notes hold rows of project_collections", "ON DELETE CASCADE",
    ),
    "a child that goes along": World(
        "CREATE TABLE notes (pc integer REFERENCES project_collections (id) ON DELETE CASCADE)",
        "children", "warn", "Rows of notes go, or change", None,
    ),
    "orphans that stay": World(
        "ALTER TABLE project_collections DROP CONSTRAINT project_collections_collection_id_fkey",
        "children", "warn", "when a row of collections is deleted",
    ),
    "keys that PostgreSQL does not enforce": World(
        "ALTER TABLE project_collections"
        " ALTER CONSTRAINT project_collections_collection_id_fkey NOT ENFORCED",
        "children", "warn", "when a row of collections is deleted",
    ),
    "a trigger that drops rows": World(
        f"{DO_NOTHING}; CREATE TRIGGER drops BEFORE INSERT OR DELETE ON project_collections"
        " FOR EACH ROW EXECUTE FUNCTION nothing()",
        "triggers", "warn", "Trigger drops of project_collections may change or refuse our writes",
    ),
    "a trigger at COMMIT": World(
        f"{DO_NOTHING}; CREATE CONSTRAINT TRIGGER late AFTER INSERT ON project_collections"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION nothing()",
        "triggers", "warn", "at COMMIT",
    ),
    "a trigger that always fires": World(
        f"{DO_NOTHING}; CREATE TRIGGER touched BEFORE UPDATE ON collections"
        " FOR EACH ROW EXECUTE FUNCTION nothing(); ALTER TABLE collections ENABLE ALWAYS TRIGGER touched",
        "triggers", "warn", "always",
    ),
    "keys that are not kept": World(
        "ALTER TABLE project_collections DISABLE TRIGGER ALL",
        "triggers", "stop", "is not kept",
    ),
    "a rule": World(
        "CREATE RULE quiet AS ON DELETE TO project_collections DO INSTEAD NOTHING",
        "rules", "stop", "Rule quiet of project_collections",
    ),
    "published without a key": World(
        "CREATE PUBLICATION everything FOR ALL TABLES; ALTER TABLE applied_versions REPLICA IDENTITY NOTHING",
        "replica_identity", "stop", "applied_versions is published (everything)",
    ),
    "an order of text that has changed": World(
        "UPDATE pg_database SET datcollversion = '0' WHERE datname = '{database}'",
        "collation", "warn", "made with version 0", None,
    ),
    "autovacuum off for a table": World(
        "ALTER TABLE outbox_events SET (autovacuum_enabled = off)",
        "autovacuum", "warn", "Autovacuum is off for outbox_events", None,
    ),
    "a slot whose reader is away": World(
        "SELECT pg_create_physical_replication_slot('forgotten', true)",
        "held_back", "warn", "Replication slot forgotten is inactive",
        undo="SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots",
    ),
    "a database that takes few connections": World(
        "ALTER DATABASE {database} CONNECTION LIMIT 12",
        "connections", "warn", "takes 12 connections at most",
    ),
    "a login that may open few connections": World(
        "ALTER ROLE {api} CONNECTION LIMIT 3",
        "connections", "warn", "Login {api} may open 3 connections; it needs 13",
    ),
    "a sequence behind the events": World(
        "INSERT INTO outbox_events (aggregate_id, event_type, source, payload) SELECT '', '', 'api', '{{}}'"
        " FROM generate_series(1, 3); SELECT setval('outbox_events_id_seq', 1)",
        "sequences", "stop", "outbox_events_id_seq is behind",
    ),
    "a sequence behind the versions": World(
        "INSERT INTO applied_versions (collection_id, version, project_id, is_deleted)"
        " VALUES ('c', 7, 'p', false)",
        "sequences", "stop", "applied_versions.version holds higher ids",
    ),
    "a sequence that deals out of order": World(
        "ALTER SEQUENCE outbox_events_id_seq CACHE 50",
        "sequences", "stop", "has CACHE 50",
    ),
    "a sequence that begins anew": World(
        "ALTER SEQUENCE audit_runs_id_seq CYCLE",
        "sequences", "stop", "has CYCLE",
    ),
    "the target's ids nearly used up": World(
        "SELECT setval('project_collections_id_seq', 2147480000)",
        "ids", "stop", "100% of the ids that project_collections.id can hold are drawn",
    ),
    "the target's ids half used up by a sequence that could go on": World(
        "ALTER SEQUENCE project_collections_id_seq AS bigint MAXVALUE 9223372036854775807;"
        " SELECT setval('project_collections_id_seq', 1500000000)",
        "ids", "warn", "70% of the ids that project_collections.id can hold are drawn",
    ),
}  # fmt: skip
# The first PostgreSQL in which that can be done.
SINCE = {"keys that PostgreSQL does not enforce": 18, "an order of text that has changed": 17}
