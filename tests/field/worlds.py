"""The worlds: what others did to the database, and what the product says to it.

To add one: its name, the owner's SQL, and, where the product has to refuse, words out of what it says then.
"""

# ruff: noqa: S608 - constants of these tests
from dataclasses import dataclass

from shared.postgres.faults import HIDDEN_ROWS
from tests.security.as_role import ROLES_SQL


@dataclass(frozen=True, slots=True)
class World:
    """A state of a database that the product has to live in, or to refuse.

    refuses: words that it says, where it cannot work; None where every step has to work.
    held: SQL that another session has carried out in a transaction which it left open.
    project: whose collections the API writes.
    is_foreseen: the preflight names what is in the way.
    """

    sql: str
    refuses: str | None = None
    held: str = ""
    project: str = "p1"
    is_foreseen: bool = True


def default(settings: str) -> str:
    """Return the SQL that gives the database defaults, which are separated by semicolons.

    PostgreSQL 18 must know them all; an older server goes without those that it does not know.
    """
    return "".join(
        f"""DO $$ BEGIN
            EXECUTE format($_$ALTER DATABASE %I SET {setting}$_$, current_database());
        EXCEPTION WHEN undefined_object THEN
            IF current_setting('server_version_num')::integer >= 180000 THEN RAISE; END IF;
        END $$;"""
        for setting in settings.split(";")
    )


def login(role: str, what: str) -> str:
    """Return the SQL that alters the login in one of our roles."""
    return f"""DO $$ BEGIN
        EXECUTE (
            SELECT format('ALTER ROLE %I {what}', member::regrole::name, current_database())
            FROM pg_auth_members WHERE roleid = 'collection_sync_{role}'::regrole
        );
    END $$;"""


def trigger(when: str, body: str, table: str = "project_collections", row: str = "NEW") -> str:
    """Return the SQL of a trigger that meddles with each row, and lets it pass in the end."""
    return f"""
        CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
            $$ BEGIN {body}; RETURN {row}; END $$;
        CREATE TRIGGER meddle {when} ON {table} FOR EACH ROW EXECUTE FUNCTION meddle();
    """


def partitioned(by: str, *partitions: str) -> str:
    """Return the SQL that puts a partitioned table in the target's place."""
    parts = "".join(
        f"CREATE TABLE part_{number} PARTITION OF project_collections {values};"
        for number, values in enumerate(partitions)
    )
    return f"""
        ALTER TABLE project_collections RENAME TO whole;
        CREATE TABLE project_collections (
            LIKE whole INCLUDING DEFAULTS, UNIQUE (project_id, collection_id)
        ) PARTITION BY {by};
        {parts}
        INSERT INTO project_collections SELECT * FROM whole;
        ALTER SEQUENCE project_collections_id_seq OWNED BY project_collections.id;
        DROP TABLE whole;
        {ROLES_SQL}
    """


def hidden(table: str) -> str:
    """Return the SQL that hides the rows of a table from everybody but its owner."""
    return f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"


BYPASSING = "".join(login(role, "BYPASSRLS") for role in ("api", "worker", "operator"))
DECOYS = "".join(
    f"CREATE TABLE decoy.{table} AS SELECT * FROM public.{table} WITH NO DATA;"
    for table in ("collections", "project_collections")
)
READABLE_DECOYS = f"CREATE SCHEMA decoy; GRANT USAGE ON SCHEMA decoy TO PUBLIC; {DECOYS}"
READABLE_DECOYS += "GRANT ALL ON ALL TABLES IN SCHEMA decoy TO PUBLIC;"
NEEDED = {
    "api": "projects project_collaborators activity_logs collections outbox_events applied_versions"
    " outbox_dead_letters backfill_runs collection_sync_version",
    "worker": "collections project_collections outbox_events applied_versions outbox_dead_letters"
    " backfill_runs audit_runs audit_findings worker_processes",
    "operator": "collections project_collections outbox_events applied_versions outbox_dead_letters"
    " backfill_runs audit_runs audit_findings",
}
UNIQUE_KEY = "project_collections_project_id_collection_id_key"

ODD_NAMES = r"""
    INSERT INTO projects (project_id, project_name, owner_user_id)
    SELECT name, name, 'owner' FROM unnest(ARRAY[
        'a "quoted" one', 'It''s. Upper % \ ?', '💡 idée', repeat('long', 2500), '', E'\x01\t\n\x7f',
        'public.projects; DROP TABLE projects; --'
    ]) AS name;
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT project_id || number, project_id, project_id, project_id, 'owner', number < 3
    FROM projects, generate_series(1, 3) AS number WHERE project_id NOT IN ('p1', 'p2', 'p3');
"""
ODD_VALUES = """
    UPDATE collections SET created_at = '10000-01-01', updated_at = 'infinity' WHERE collection_id = 'c08';
    UPDATE collections SET created_at = '-infinity', updated_at = '0044-03-15 BC' WHERE collection_id = 'c09';
    UPDATE collections SET created_at = NULL, updated_at = NULL, description = '' WHERE collection_id = 'c10';
    UPDATE collections SET is_active = NULL, description = NULL WHERE collection_id = 'c11';
    UPDATE collections SET linked_question_ids = ('[' || repeat('1', 5000) || ']')::json,
        linked_hypothesis_ids = '["\\ud800", "\\u0000", 1e400]'::text::json WHERE collection_id = 'c12';
    UPDATE collections SET description = repeat(E'\\x01 \u202e \\\\ '' "', 20000) WHERE collection_id = 'c13';
"""

KINDS = {
    "an ordinary one": World("SELECT 1"),
    "values shown otherwise": World(
        default(
            "datestyle = 'SQL, DMY'; intervalstyle = sql_standard; timezone = 'Asia/Kolkata'; "
            "bytea_output = escape; extra_float_digits = '-15'; quote_all_identifiers = on; "
            "standard_conforming_strings = off; array_nulls = off; transform_null_equals = on; "
            "client_min_messages = debug1; default_text_search_config = 'pg_catalog.german'; "
            "default_toast_compression = pglz; synchronous_commit = remote_apply; xmloption = document; "
            "check_function_bodies = off; default_transaction_deferrable = on; row_security = on; "
            "session_replication_role = replica; client_encoding = latin1"
        )
    ),
    "plans made otherwise": World(
        default(
            "enable_indexscan = off; enable_indexonlyscan = off; enable_bitmapscan = off; "
            "enable_hashjoin = off; enable_nestloop = off; enable_sort = off; enable_hashagg = off; "
            "jit = on; jit_above_cost = 0; plan_cache_mode = force_generic_plan; work_mem = '64kB'; "
            "debug_parallel_query = on; join_collapse_limit = 1; from_collapse_limit = 1; "
            "random_page_cost = 1000; geqo_threshold = 2; temp_buffers = 100; hash_mem_multiplier = 1"
        )
    ),
    "impatient": World(
        default(
            "statement_timeout = '1ms'; lock_timeout = '1ms'; "
            "idle_in_transaction_session_timeout = '1ms'; transaction_timeout = '100ms'; "
            "idle_session_timeout = '50ms'; default_transaction_isolation = serializable"
        )
    ),
    "read-only": World(default("default_transaction_read_only = on"), "PostgreSQL is read-only"),
    "decoys before the operator's tables": World(
        READABLE_DECOYS + login("operator", "SET search_path = decoy, public"), "decoy", is_foreseen=False
    ),
    "no schema to look in": World(default("search_path = nowhere"), "search_path"),
    "collections hidden": World(hidden("collections"), HIDDEN_ROWS),
    "the target hidden in part": World(
        hidden("project_collections")
        + "; CREATE POLICY part ON project_collections TO PUBLIC USING (project_id <> 'p3')",
        HIDDEN_ROWS,
    ),
    "hidden from nobody of ours": World(
        BYPASSING + "; ".join(map(hidden, ("collections", "project_collections", "outbox_events")))
    ),
    "a column of the target without a default": World(
        "ALTER TABLE project_collections ADD extra text NOT NULL DEFAULT '';"
        "ALTER TABLE project_collections ALTER extra DROP DEFAULT",
        "column extra",
    ),
    "a column of legacy without a default": World(
        "ALTER TABLE collections ADD extra text NOT NULL DEFAULT '';"
        "ALTER TABLE collections ALTER extra DROP DEFAULT",
        "23502",
    ),
    "shorter texts in the target": World(
        "UPDATE collections SET description = 'a longer text' WHERE collection_id = 'c09';"
        "ALTER TABLE project_collections ALTER research_context TYPE varchar(10)",
        "22001",
    ),
    "a target that touches its rows": World(
        trigger("BEFORE INSERT OR UPDATE", "NEW.updated_at := now()"), "its trigger meddle"
    ),
    "a row that is refused at COMMIT": World(
        trigger(
            "AFTER INSERT OR UPDATE",
            "IF NEW.collection_id = 'c09' THEN RAISE check_violation USING CONSTRAINT = 'no_c09'; END IF",
        ).replace(
            "CREATE TRIGGER meddle AFTER INSERT OR UPDATE ON project_collections",
            "CREATE CONSTRAINT TRIGGER meddle AFTER INSERT OR UPDATE ON project_collections"
            " DEFERRABLE INITIALLY DEFERRED",
        ),
        "no_c09",
    ),
    "a rule for deletions": World(
        "CREATE RULE none AS ON DELETE TO project_collections DO INSTEAD NOTHING", "0A000"
    ),
    "no tables to be made": World(
        """
        CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'no tables'; END $$;
        CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS')
            EXECUTE FUNCTION refuse();
        """,
        "canary",
        is_foreseen=False,
    ),
    "the target in a partition for each project": World(
        partitioned("LIST (project_id)", *(f"FOR VALUES IN ('p{number}')" for number in (1, 2, 3)))
    ),
    "no unique key": World(f"ALTER TABLE project_collections DROP CONSTRAINT {UNIQUE_KEY}", "42P10"),
    "ids used up": World("SELECT setval('project_collections_id_seq', 2147483647)", "2200H"),
    "versions behind": World(
        "INSERT INTO applied_versions (collection_id, version, project_id, is_deleted)"
        " VALUES ('c40', 1000, 'p1', true)",
        "applied_versions.version",
    ),
    "versions drawn in advance": World("ALTER SEQUENCE outbox_events_id_seq CACHE 50", "has CACHE 50"),
    "odd rows": World(ODD_NAMES + ODD_VALUES, project="It's. Upper % \\ ?"),
    "no connection for the API": World(login("api", "CONNECTION LIMIT 0"), "53300"),
    "the API may not append": World("REVOKE ALL ON outbox_events FROM collection_sync_api", "42501"),
}

# More of the same kinds, for `make test-long`.
SIBLINGS = {
    "columns that nobody of ours writes": World("""
        ALTER TABLE collections ADD visibility varchar NOT NULL DEFAULT 'private',
            ADD initial text GENERATED ALWAYS AS (left(collection_name, 1)) STORED;
        ALTER TABLE project_collections ADD visibility varchar NOT NULL DEFAULT 'private',
            ADD initial text GENERATED ALWAYS AS (left(research_context, 1)) STORED,
            ALTER id TYPE bigint;
    """),
    "a row that is not given up": World(
        trigger("BEFORE DELETE", "IF OLD.collection_id = 'c31' THEN RETURN NULL; END IF", row="OLD"),
        "unapplied",
    ),
    "no partition for a project": World(
        partitioned("LIST (project_id)", "FOR VALUES IN ('p2')", "FOR VALUES IN ('p3')"), "23514"
    ),
    "the operator may not look": World(
        "REVOKE ALL ON collections FROM collection_sync_operator", "roles.sql"
    ),
    "read-only for the worker": World(
        login("worker", "SET default_transaction_read_only = on"), "PostgreSQL is read-only"
    ),
    "read-only for operators": World(
        login("operator", "SET default_transaction_read_only = on"), "PostgreSQL is read-only"
    ),
    "temporary tables last": World(login("operator", "SET search_path = public, pg_temp")),
    "decoys before the worker's tables": World(
        READABLE_DECOYS + login("worker", "SET search_path = decoy, public"), "decoy", is_foreseen=False
    ),
    "decoys before the API's tables": World(
        READABLE_DECOYS + login("api", "SET search_path = decoy, public"), "decoy", is_foreseen=False
    ),
    "the target hidden": World(hidden("project_collections"), HIDDEN_ROWS),
    "a text that is generated": World(
        """
        ALTER TABLE project_collections DROP research_context;
        ALTER TABLE project_collections ADD research_context text GENERATED ALWAYS AS ('x') STORED;
        """
        + ROLES_SQL,
        "428C9",
    ),
    "times of whole seconds in the target": World(
        "ALTER TABLE project_collections ALTER updated_at TYPE timestamptz(0)", "canary"
    ),
    "times without a zone in the target": World(
        "ALTER TABLE project_collections ALTER updated_at TYPE timestamp, ALTER created_at TYPE timestamp"
    ),
    "legacy that touches its rows": World(
        trigger("BEFORE INSERT OR UPDATE", "NEW.updated_at := clock_timestamp()", "collections")
    ),
    "a target that writes back": World(
        trigger(
            "AFTER INSERT OR UPDATE",
            "UPDATE collections SET updated_at = clock_timestamp() WHERE collection_id = NEW.collection_id",
        ),
        "by a writer that appends no event",
    ),
    "a row that is not taken": World(
        trigger("BEFORE INSERT", "IF NEW.collection_id = 'c09' THEN RETURN NULL; END IF"), "unapplied"
    ),
    "a row that a child holds": World(
        """
        CREATE TABLE notes (pc integer NOT NULL REFERENCES project_collections (id));
        INSERT INTO notes SELECT id FROM project_collections WHERE collection_id = 'c31';
        """,
        "table notes",
    ),
    "versions that are not kept": World(trigger("BEFORE INSERT", "RETURN NULL", "applied_versions"), "drift"),
    "a rule for insertions": World(
        "CREATE RULE also AS ON INSERT TO project_collections DO ALSO SELECT 1", "0A000"
    ),
    "the target a view": World(
        f"""
        ALTER TABLE project_collections RENAME TO whole;
        CREATE VIEW project_collections AS SELECT * FROM whole;
        ALTER VIEW project_collections ALTER id SET DEFAULT nextval('project_collections_id_seq');
        {ROLES_SQL}
        """
    ),
    "the target in partitions by hash": World(
        partitioned(
            "HASH (collection_id)",
            *(f"FOR VALUES WITH (MODULUS 3, REMAINDER {number})" for number in range(3)),
        ),
    ),
    "the target in another schema": World(
        """
        CREATE SCHEMA other; GRANT USAGE ON SCHEMA other TO PUBLIC;
        ALTER TABLE project_collections SET SCHEMA other;
        SET search_path = public, other;
        """
        + default("search_path = public, other")
    ),
    "an unlogged target": World("ALTER TABLE project_collections SET UNLOGGED"),
    "an unlogged outbox": World("ALTER TABLE outbox_events SET UNLOGGED", "is unlogged"),
    "a unique key that is deferrable": World(
        f"""
        ALTER TABLE project_collections DROP CONSTRAINT {UNIQUE_KEY};
        ALTER TABLE project_collections ADD UNIQUE (project_id, collection_id) DEFERRABLE;
        """,
        "55000",
    ),
    "published": World("""
        CREATE PUBLICATION everything FOR ALL TABLES;
        ALTER TABLE project_collections REPLICA IDENTITY FULL; ALTER TABLE collections REPLICA IDENTITY FULL;
    """),
    "published without an identity": World(
        """
        CREATE PUBLICATION everything FOR ALL TABLES;
        ALTER TABLE project_collections REPLICA IDENTITY NOTHING;
        """,
        "55000",
    ),
    "ids of the target behind": World("SELECT setval('project_collections_id_seq', 1, false)"),
    "audits behind": World(
        "INSERT INTO audit_runs (id, status, requested_by, repair, started_at, heartbeat_at,"
        " finished_at) OVERRIDING SYSTEM VALUE"
        " VALUES (1000, 'failed', 'schedule', false, now(), now(), now())",
        "audit_runs",
    ),
    "backfills behind": World(
        "INSERT INTO backfill_runs (id, status, in_worker, max_pending, chunk_size, planned, finished_at)"
        " OVERRIDING SYSTEM VALUE VALUES (1000, 'cancelled', true, 1, 1, 0, now())",
        "backfill_runs",
    ),
    "workers behind": World(
        "INSERT INTO worker_processes (id, name, ended_at) OVERRIDING SYSTEM VALUE VALUES (1000, 'x', now())",
        "worker_processes",
    ),
    "versions that go down": World("ALTER SEQUENCE outbox_events_id_seq INCREMENT -1", "has INCREMENT -1"),
    "versions that begin anew": World("ALTER SEQUENCE outbox_events_id_seq CYCLE", "has CYCLE"),
    "versions that a crash forgets": World("ALTER SEQUENCE outbox_events_id_seq SET UNLOGGED", "is unlogged"),
    "a transaction left open": World("SELECT 1", held="UPDATE users SET last_name = 'held'"),
    "a row of the target held": World(
        "SELECT 1",
        held="SELECT FROM project_collections WHERE collection_id = 'c02' FOR UPDATE",
        refuses="55P03",
        is_foreseen=False,
    ),
    "no connection for the worker": World(login("worker", "CONNECTION LIMIT 0"), "53300"),
    "the worker may not write": World(
        "REVOKE ALL ON project_collections FROM collection_sync_worker", "42501"
    ),
    "nobody may draw": World(
        "REVOKE ALL ON SEQUENCE project_collections_id_seq FROM collection_sync_worker", "42501"
    ),
    "nobody of ours may enter": World(
        "REVOKE ALL ON SCHEMA public FROM PUBLIC;"
        "REVOKE USAGE ON SCHEMA public FROM collection_sync_api, collection_sync_worker,"
        " collection_sync_operator",
        "roles.sql",
    ),
    **{
        f"{table} hidden": World(hidden(table), HIDDEN_ROWS)
        for table in (
            *("projects", "project_collaborators", "activity_logs", "outbox_events"),
            *("applied_versions", "outbox_dead_letters", "backfill_runs", "audit_runs", "audit_findings"),
            *("worker_processes", "collection_sync_version"),
        )
    },
    **{
        f"{table} closed to the {role}": World(
            f"REVOKE ALL ON {table} FROM collection_sync_{role}", "roles.sql"
        )
        for role, tables in NEEDED.items()
        for table in tables.split()
    },
}
