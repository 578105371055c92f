"""What the processes need of each table, by role; a test holds it against `deploy/roles.sql`."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from shared.migration_state import VERSION_TABLE
from shared.phase.view import VIEW
from shared.projection import COLUMNS
from shared.tables import capture, operators, phase, runs  # noqa: F401 - their tables belong to the same metadata
from shared.tables.legacy import legacy_metadata
from shared.tables.outbox import metadata

LEGACY, TARGET = "collections", "project_collections"
OURS = (*metadata.tables, VERSION_TABLE)
TABLES = (*legacy_metadata.tables, TARGET, *OURS)
# What the worker writes of the target, and where in the legacy table it comes from.
COPIED = MappingProxyType(
    {
        "project_id": "project_id",
        "collection_id": "collection_id",
        **{column.name: column.legacy for column in COLUMNS},
    }
)

API, WORKER, OPERATOR, READER, SCALER = (
    f"collection_sync_{name}" for name in ("api", "worker", "operator", "reader", "scaler")
)
ROLES = (API, WORKER, OPERATOR, READER, SCALER)
ALL = ""  # columns
LOGGED = "id aggregate_id event_type source created_at"
GUARDED = "collection_id version project_id is_deleted found_row row_id"
APPENDED = "aggregate_id event_type source payload traceparent schema_version"
LETTER = f"{LOGGED} died_at sqlstate error attempts state closed_at replayed_as traceparent"
SAID = "message detail hint"  # by PostgreSQL of a letter, which may quote what users wrote
FOUND = "audit_run_id collection_id project_id kind found_at repair_event_id outcome"
INSERTED = (
    "collection_id project_id collection_name description created_by is_active color icon sort_order"
    " linked_hypothesis_ids linked_question_ids collection_purpose auto_update"
)
CHANGED = (
    "collection_name description updated_at is_active color icon linked_hypothesis_ids"
    " linked_question_ids collection_purpose auto_update"
)
READ_OF_LEGACY = " ".join(dict.fromkeys([*INSERTED.split(), *COPIED.values()]))
ORDERED_RUN = "status in_worker project_id rate max_pending chunk_size planned end_key"
DRIVEN_RUN = (
    "status chunk_size cursor_key processed enqueued skipped missing mismatched orphaned last_event_id"
    " throttled_by slowed_by driver driver_token heartbeat_at finished_at"
)
SHOWN_RUN = (
    "id status in_worker project_id rate max_pending chunk_size cursor_key end_key planned processed"
    " enqueued skipped missing mismatched orphaned last_event_id throttled_by slowed_by driver started_at"
    " heartbeat_at finished_at"
)

Privileges = Mapping[str, str]  # the columns, parted by spaces, by the privilege
READ: Privileges = {"SELECT": ALL}
OUR_SEQUENCES = {f"{table}_id_seq": READ for table in ("outbox_events", "backfill_runs", "audit_runs")}
ALL_SEQUENCES = {**OUR_SEQUENCES, "worker_processes_id_seq": READ}
TARGETS_SEQUENCE = f"{TARGET}_id_seq"
COUNTS = ("captured_counts", "captured_writers")
CAPTURE = dict.fromkeys(("capture_settings", "captured_writes", *COUNTS), READ)
SHADOW = ("shadow_counts", "shadow_findings")
TURNED: Privileges = {"SELECT": ALL, "UPDATE": "phase epoch since actor falls_back"}
SEEN_TURNS = dict.fromkeys(("migration_phase", "phase_turns"), READ)
SEEN_CUTOVER = dict.fromkeys((*SHADOW, "going_back_losses"), READ)
AUDITS: Privileges = {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL}
NEEDS: Mapping[str, Mapping[str, Privileges]] = {
    API: {
        "users": {"SELECT": "user_id email"},
        "projects": {"SELECT": "project_id owner_user_id"},
        "project_collaborators": {"SELECT": "project_id user_id is_active"},
        "article_collections": {"SELECT": "collection_id article_pmid"},
        "activity_logs": {
            "INSERT": "activity_id project_id user_id activity_type description activity_metadata"
        },
        LEGACY: {"SELECT": READ_OF_LEGACY, "INSERT": INSERTED, "UPDATE": CHANGED},
        "outbox_events": {
            "SELECT": f"{LOGGED} attempts lane schema_version traceparent",
            "INSERT": APPENDED,
        },
        "applied_versions": {
            "SELECT": "collection_id version appended_at dated_version project_id is_deleted found_row"
        },
        "outbox_dead_letters": {
            "SELECT": f"{LETTER} {SAID}",
            "UPDATE": "state closed_at replayed_as",
        },
        TARGET: {"SELECT": " ".join(["id", *COPIED])},
        "backfill_runs": {
            "SELECT": ALL,
            "INSERT": ORDERED_RUN,
            "UPDATE": "status in_worker throttled_by driver_token heartbeat_at finished_at",
        },
        "audit_runs": {"SELECT": ALL, "INSERT": "status requested_by project_id repair"},
        "audit_findings": {"SELECT": FOUND},
        "worker_processes": READ,
        "operator_acts": {"SELECT": ALL, "INSERT": "actor act subject outcome"},
        "idempotency_keys": {"SELECT": ALL, "INSERT": "user_id project_id key fingerprint answer"},
        VIEW: READ,
        "migration_phase": TURNED,
        "phase_turns": {"SELECT": ALL, "INSERT": ALL},
        **{table: {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL} for table in SHADOW},
        "going_back_losses": READ,
        VERSION_TABLE: READ,
        **CAPTURE,
        **OUR_SEQUENCES,
    },
    WORKER: {
        LEGACY: {"SELECT": ALL, "UPDATE": "note_count"},
        TARGET: {
            "SELECT": ALL,
            "INSERT": " ".join(COPIED),
            "UPDATE": " ".join(column.name for column in COLUMNS),
            "DELETE": ALL,
        },
        TARGETS_SEQUENCE: {"SELECT": ALL, "USAGE": ALL},
        **ALL_SEQUENCES,
        "outbox_events": {"SELECT": ALL, "INSERT": APPENDED, "UPDATE": "attempts", "DELETE": ALL},
        "applied_versions": {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        "outbox_dead_letters": {
            "SELECT": "id aggregate_id created_at sqlstate error attempts closed_at",
            "INSERT": ALL,
            "UPDATE": f"died_at sqlstate error attempts state closed_at replayed_as {SAID}",
            "DELETE": ALL,
        },
        "idempotency_keys": {"SELECT": "created_at", "DELETE": ALL},
        **CAPTURE,
        "captured_writes": {"SELECT": ALL, "UPDATE": "captured_at", "DELETE": ALL},
        **{table: {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL} for table in COUNTS},
        VERSION_TABLE: {"SELECT": "database_id"},
        "worker_processes": {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        **SEEN_TURNS,
        **{table: {"SELECT": ALL, "DELETE": ALL} for table in SHADOW},
        "going_back_losses": {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        "backfill_runs": {"SELECT": ALL, "UPDATE": DRIVEN_RUN},
        "audit_runs": AUDITS,
        "audit_findings": AUDITS,
    },
    OPERATOR: {
        "projects": {"SELECT": "project_id"},
        LEGACY: {"SELECT": ALL, "UPDATE": "note_count"},
        TARGET: {"SELECT": ALL, "DELETE": ALL},
        "outbox_events": {"SELECT": ALL, "INSERT": APPENDED, "UPDATE": "attempts", "DELETE": ALL},
        "applied_versions": {"SELECT": ALL, "INSERT": GUARDED, "DELETE": ALL},
        "outbox_dead_letters": {"SELECT": ALL, "UPDATE": "state closed_at replayed_as"},
        "backfill_runs": {
            "SELECT": ALL,
            "INSERT": ORDERED_RUN,
            "UPDATE": f"{DRIVEN_RUN} in_worker rate",
        },
        "worker_processes": READ,
        "operator_acts": READ,
        "migration_phase": TURNED,
        "phase_turns": {"SELECT": ALL, "INSERT": ALL},
        **SEEN_CUTOVER,
        **CAPTURE,
        VERSION_TABLE: READ,
        TARGETS_SEQUENCE: READ,
        **ALL_SEQUENCES,
        "audit_runs": AUDITS,
        "audit_findings": AUDITS,
    },
    READER: {
        "audit_runs": READ,
        "worker_processes": READ,
        "operator_acts": READ,
        **SEEN_TURNS,
        **SEEN_CUTOVER,
        **CAPTURE,
        VERSION_TABLE: READ,
        "applied_versions": READ,
        "backfill_runs": {"SELECT": SHOWN_RUN},
        "audit_findings": {"SELECT": FOUND},
        "outbox_events": {"SELECT": f"{LOGGED} lane attempts traceparent schema_version"},
        "outbox_dead_letters": {"SELECT": LETTER},
        LEGACY: {"SELECT": "collection_id project_id is_active"},
        TARGET: {"SELECT": "collection_id project_id"},
    },
    SCALER: {"outbox_events": {"SELECT": "id lane created_at"}},
}


class Need(NamedTuple):
    """A privilege on a table or a sequence, or on one column of it."""

    role: str
    relation: str
    column: str | None
    privilege: str


def needs() -> Iterator[Need]:
    for role, relations in NEEDS.items():
        for relation, privileges in relations.items():
            for privilege, columns in privileges.items():
                for column in columns.split() or (None,):
                    yield Need(role, relation, column, privilege)
