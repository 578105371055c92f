"""What the log says: every line that a process of ours may write, with its fields, units and level.

Dashboards and alerts are drawn from these lines, so they are an interface. The tables of
`docs/logs.md` are made from this file (`python -m shared.logs.contract`), and tests hold every line that is
written against it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG_VERSION = 2

TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
PAGE = Path(__file__).parents[2] / "docs" / "logs.md"
MARK = "<!-- What follows is made by `python -m shared.logs.contract`. -->"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a line: a type of JSON, whether it may be null or absent, its meaning and unit."""

    type: str
    meaning: str
    nullable: bool = False
    optional: bool = False

    def accepts(self, value: object) -> bool:
        """Say whether the value has the field's type."""
        if value is None:
            return self.nullable
        if isinstance(value, bool):
            return self.type == "boolean"
        return isinstance(value, TYPES[self.type])


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One kind of line: its fixed name, who writes it, at which levels, and its fields by name."""

    name: str
    writers: str
    levels: tuple[str, ...]
    meaning: str
    fields: Mapping[str, Field]

    def problems(self, line: Mapping[str, Any]) -> list[str]:
        """Say in which ways the line is not one of these."""
        own = {name: value for name, value in line.items() if name not in COMMON}
        problems = [f"unknown field {name}" for name in own if name not in self.fields]
        problems += [
            f"no field {name}"
            for name, field in self.fields.items()
            if not field.optional and name not in own
        ]
        problems += [
            f"{name} is {value!r}, not {self.fields[name].type}"
            for name, value in own.items()
            if name in self.fields and not self.fields[name].accepts(value)
        ]
        if line.get("level") not in self.levels:
            problems.append(f"level is {line.get('level')}, not {' or '.join(self.levels)}")
        return problems


def _field(text: str) -> Field:
    kind, _, meaning = text.partition(": ")
    return Field(kind.rstrip("?~"), meaning, nullable="?" in kind, optional="~" in kind)


def _event(name: str, writers: str, levels: str, meaning: str, /, **fields: str) -> LogEvent:
    """Declare a line. A field is "type: meaning"; after the type, `?` is "or null", `~` "may be absent"."""
    return LogEvent(
        name, writers, tuple(levels.split()), meaning, {key: _field(text) for key, text in fields.items()}
    )


COMMON = {
    "timestamp": _field("string: UTC, ISO 8601, `Z`, microseconds; the process's own clock"),
    "level": _field("string: `info`, `warning`, `error` or `critical`; error: somebody has to do something"),
    "event": _field("string: one of the names below, never anything that varies"),
    "process": _field("string: `api`, `worker`, or the command's name"),
    "schema_version": _field(f"integer: of this contract: {LOG_VERSION}"),
}

_ERROR = "string: the kind of error; never a message that quotes what users wrote"
_SQLSTATE = "string?: PostgreSQL's code, where it has one"
_TRACE = "string~: 32 hexadecimal digits: the trace of the request, where there is one"
_RUN = "integer: the run: `backfill_runs.id`"
_AUDIT = "integer: the run: `audit_runs.id`"
_COLLECTION = "string: `collections.collection_id`"
_PROJECT = "string: the home project"
_EVENT_TYPE = (
    "string: `collection.created`, `collection.updated` or `collection.deleted`; another is malformed"
)
_LETTER_IDS = "array: the first five hundred of them: `outbox_dead_letters.id`, which is the event's id"
_SCOPE = "string?: only this home project; null: all"

_BACKFILL_COUNTS = {
    "run_id": _RUN,
    "processed": "integer: rows of `collections` looked at",
    "planned": "integer: rows counted at the start",
    "enqueued": "integer: events appended",
    "skipped": "integer: rows for which there was nothing to do",
    "missing": "integer: enqueued, for want of a home row",
    "mismatched": "integer: enqueued, because the home row differed",
    "orphaned": "integer: enqueued, because the collection was deleted",
    "duration_seconds": "number: seconds since the run began",
    "driver": "string?: `host:pid:drawn` of the process that drives the run",
}
_AUDIT_COUNTS = {
    "compared": "integer: pairs compared",
    "active_collections": "integer: active rows of `collections`",
    "home_rows": "integer: home rows of `project_collections`",
    "missing": "integer: pairs without a home row, and no event waits",
    "mismatched": "integer: pairs whose home row differs, and no event waits",
    "orphaned": "integer: home rows that should not be there, and no event waits",
    "pending": "integer: pairs that differ and whose event waits",
}
_OUTCOMES = {
    "applied": "integer: events whose state is in `project_collections` now",
    "stale": "integer: events older than what was applied before",
    "conflated": "integer: events of which a newer one was in the same batch",
    "obsolete": "integer: events whose project or collection is gone, or that the legacy table belies",
    "dead": "integer: events that became dead letters",
    "postponed": "integer: events that stay pending, for no known fault of their own",
}
_HOLDER = {
    "kind": "string: `session`, `replication_slot` or `prepared_transaction`",
    "pid": "integer?: of the session",
    "name": "string?: of the slot or the prepared transaction",
    "user": "string?: of the session or the prepared transaction",
    "application_name": "string?: of the session",
    "database": "string?: to which it is connected",
    "state": "string?: as in `pg_stat_activity`; null where our role may not see it",
    "held_seconds": "number: seconds for which it has held its snapshot",
    "dead_events": "integer?: rows of `outbox_events` deleted and not forgotten, by PostgreSQL's estimate",
}
_FINDING_SIDE = "the compared columns by name, texts cut at 200 characters"
_ROLLBACK_COUNTS = {
    "removed": "integer: rows of `project_collections` that this system made and nobody enriched",
    "kept_enriched": "integer: rows kept, because somebody added to them",
    "kept_found": "integer: rows kept, because they were there before",
    "kept_links": "integer: rows kept, which link collections to other projects",
    "discarded_events": "integer: pending events removed",
    "dry_run": "boolean: nothing was changed",
}

_OUTAGE = {
    "hint": "string~: what Redis refuses, and what to do",
    "times": "integer~: how often it went, where that was oftener than there are lines: two in half a minute",
}

CONTRACT: Mapping[str, LogEvent] = {
    event.name: event
    for event in (
        _event(
            "worker_started", "worker", "info", "A worker begins.",
            worker="string: `host:pid:drawn`",
            pid="integer: its process id",
            health_key="string: its key in Redis",
        ),
        _event(
            "worker_stopped", "worker", "info", "A worker ended in good order.",
            worker="string: `host:pid:drawn`",
            pid="integer: its process id",
        ),
        _event(
            "worker_heartbeat", "worker", "info warning",
            "Every five seconds: the worker lives, and this waits. A warning while PostgreSQL is silent"
            " or unfit: then the counts are null. A dashboard that has seen none for 15 seconds is blind.",
            worker="string: `host:pid:drawn`",
            uptime_seconds="number: since the worker began",
            database="string: `up`; `away`: PostgreSQL did not answer within two seconds; or `unfit`: it"
            " answers, and nothing may be written there",
            redis="string: `up`: ringing and listening work; `away`: Redis does not answer; or `refuses`: it"
            " answers, and refuses something that the doorbell needs, or PostgreSQL refuses to say which"
            " rings are ours. Unless it is up, PostgreSQL is asked instead",
            pending_live="integer?: events of users' writes that wait; counted up to 100,000",
            pending_repair="integer?: events of repairs that wait; counted up to 100,000",
            pending_backfill="integer?: events of backfills that wait; counted up to 100,000",
            oldest_live_seconds="number?: age of the oldest of them; 0 when none waits",
            oldest_repair_seconds="number?: age of the oldest of them; 0 when none waits",
            oldest_backfill_seconds="number?: age of the oldest of them; 0 when none waits",
            pending_unknown_version="integer?~: events of later versions than the worker knows, in no lane of"
            " those; counted up to 200,000",
            dead_letters="integer?: dead letters that are open",
            clock_offset_ms="number?: the process's clock less PostgreSQL's",
            hint="string?~: what to do, where PostgreSQL is unfit, or Redis refuses",
        ),
        _event(
            "batch_settled", "worker", "info",
            "One transaction of {claim, apply, acknowledge}, and of it one lane. A batch with repair and"
            " backfill events has a line for each.",
            wake="string: what woke the worker: `doorbell`, `sweep` or `poll`",
            lane="string: `live`, `repair` or `backfill`",
            claimed="integer: events; the sum of the six outcomes",
            **_OUTCOMES,
            oldest_pending_ms="number: milliseconds the oldest of them had waited when it was claimed",
            lag_ms_p50="number?: median of the milliseconds from an event's append to the end of its batch;"
            " null when all are postponed",
            lag_ms_p95="number?: 95th percentile of the same",
            lag_ms_p99="number?: 99th percentile of the same",
            lag_ms_max="number?: the longest",
            lag_ms_counts="object: how many lags were in (1.1^(i-1), 1.1^i] ms, by i, a string: these can be"
            " added over batches and workers, and give percentiles within 5 %",
            duration_ms="number: milliseconds the transaction took",
        ),
        _event(
            "event_settled", "worker", "info error",
            "What became of one event; an error when it is dead. Of events that a backfill had applied,"
            " one in a thousand has a line.",
            event_id="integer: `outbox_events.id`, the version",
            collection_id=_COLLECTION,
            project_id="string?: the home project; null when the payload names none",
            event_type=_EVENT_TYPE,
            source="string: `api`, `repair` or `backfill`",
            outcome="string: `applied`, `stale`, `conflated`, `obsolete` or `dead`",
            lag_ms="number: milliseconds from the event's append to the end of its batch",
            sqlstate="string?~: where PostgreSQL refused it, its code",
            error="string~: why it could not be applied, without a value that a user wrote",
            trace_id=_TRACE,
            one_of="integer~: the line stands for so many events",
        ),
        _event(
            "events_postponed", "worker", "warning", "Events of a batch could not be applied now; they wait.",
            events="integer: how many",
            first_event_id="integer: the first of them",
            collection_id=_COLLECTION,
            sqlstate=_SQLSTATE,
            error="string?: why the first could not be applied",
        ),
        _event(
            "batch_failed", "worker", "warning error",
            "A batch changed nothing; it is tried again. A warning where that is likely to help.",
            transient="boolean: it passes by itself",
            error=_ERROR,
            sqlstate=_SQLSTATE,
            failures="integer: in a row",
            hint="string~: what to do",
        ),
        _event(
            "unknown_versions_wait", "worker", "warning",
            "Events wait that this worker leaves to a later one; again each minute.",
            events="integer: how many; counted up to 200,000",
            known_version="integer: the newest version that this worker knows",
            newest_version="integer: the newest version that waits",
            hint="string: what to do",
        ),
        _event(
            "unknown_versions_settled", "worker", "info", "None of them waits any more.",
            known_version="integer: the newest version that this worker knows",
        ),
        _event(
            "job_unfinished", "worker", "warning",
            "Only release 0.1.0 logs it: a job ended in an error; no event is lost by it.",
            error=_ERROR,
        ),
        _event(
            "redis_lost", "worker", "warning",
            "Redis is silent, or refuses something; PostgreSQL is asked five times a second.",
            error=_ERROR,
            **_OUTAGE,
        ),
        _event(
            "redis_restored", "worker", "info", "Redis answers again, and refuses nothing.",
            times=_OUTAGE["times"],
        ),
        _event(
            "strangers_dropped", "worker", "warning",
            "Our queue in Redis held what is no job of ours; the worker removed it unread. Told once a"
            " minute.",
            queue="string: the queue's key",
            entries="integer: removed since the line before; a key of another type counts as one",
        ),
        _event(
            "duty_failed", "worker", "warning error", "The first of a row of failures of something periodic.",
            duty="string: `backfill`, `audit`, `presence`, `dead letters`, `snapshots`, `heartbeat`,"
            " `tombstones`, `metrics` or `identity`: of the database, without which no ring is heard",
            error=_ERROR,
            sqlstate=_SQLSTATE,
            hint="string~: what to do",
        ),
        _event(
            "snapshot_held", "worker", "warning",
            "Who has kept PostgreSQL from forgetting acknowledged events for ten seconds; again each minute.",
            **_HOLDER,
        ),
        _event("snapshot_released", "worker", "info", "The same does so no longer.", **_HOLDER),
        _event(
            "dead_letters_superseded", "worker", "info", "A newer event of its collection closed a letter.",
            letters="integer: how many",
            event_ids=_LETTER_IDS,
        ),
        _event(
            "dead_letters_pruned", "worker", "info", "Letters closed long ago were removed.",
            letters="integer: how many",
        ),
        _event(
            "tombstones_pruned", "worker", "info", "Tombstones that nothing can need any more were removed.",
            tombstones="integer: how many",
        ),
        _event(
            "dead_letters_replayed", "api, dead_letters", "info", "Somebody had letters replayed.",
            letters="integer: how many",
            no_collection="integer: how many could not be, because their collection is gone",
            event_ids=_LETTER_IDS,
        ),
        _event(
            "dead_letters_discarded", "api, dead_letters", "info", "Somebody closed letters, replaying none.",
            letters="integer: how many",
            event_ids=_LETTER_IDS,
        ),
        _event(
            "collection_written", "api", "info", "A write is committed.",
            action="string: `collection_created`, `collection_updated` or `collection_deleted`",
            collection_id=_COLLECTION,
            project_id=_PROJECT,
            event_id="integer: of the event appended with it",
            event_type=_EVENT_TYPE,
            trace_id=_TRACE,
        ),
        _event(
            "overloaded", "api", "warning", "The first request refused for want of room.",
            lane="string: `reads`, `writes`, `admin` or `bodies`",
        ),
        _event(
            "overload_over", "api", "info", "Requests are accepted again.",
            lane="string: as above",
            refused="integer: requests answered with 503 meanwhile",
        ),
        _event(
            "database_unavailable", "api", "warning error",
            "A request was answered with 503. An error where waiting is not likely to help.",
            error=_ERROR,
            sqlstate=_SQLSTATE,
            method="string: of HTTP",
            route="string: the path's template, without ids",
            hint="string~: what to do",
        ),
        _event(
            "request_failed", "api", "error", "A request was answered with 500: a defect.",
            error=_ERROR,
            sqlstate=_SQLSTATE,
            method="string: of HTTP",
            route="string: the path's template, without ids",
            frames="string: the stack, without the error's message",
        ),
        _event(
            "verification_requested", "api", "info", "An administrator asked for an audit.",
            audit_id=_AUDIT,
        ),
        _event(
            "backfill_ordered", "api", "info", "An administrator started or changed a backfill.",
            order="string: what was asked for",
            run_id="integer?: the run: `backfill_runs.id`",
            status="string?: of the run",
        ),
        _event(
            "doorbell_silent", "api, worker, backfill", "warning",
            "Redis takes no ring, or only some of it; workers find events within a second by themselves.",
            error=_ERROR,
            **_OUTAGE,
        ),
        _event(
            "doorbell_restored", "api, worker, backfill", "info", "Redis takes rings again.",
            times=_OUTAGE["times"],
        ),
        _event(
            "doorbell_stopped", "api", "error", "The task that rings ended: a defect.",
            error=_ERROR,
        ),
        _event(
            "backfill_started", "backfill, worker", "info", "This process drives the run from here on.",
            run_id=_RUN,
            resumed="boolean: it was begun before",
            processed=_BACKFILL_COUNTS["processed"],
            planned=_BACKFILL_COUNTS["planned"],
            project_id=_SCOPE,
            rate="integer?: at most so many rows a second; null: no bound",
            max_pending="integer: throttled at so many pending backfill events",
            chunk_size="integer: rows of the next chunk",
            driver=_BACKFILL_COUNTS["driver"],
        ),
        _event(
            "backfill_chunk", "backfill, worker", "info", "Chunks since the last line, one a second at most.",
            run_id=_RUN,
            chunks="integer: how many",
            rows="integer: rows looked at in them",
            enqueued="integer: events appended in them",
            skipped="integer: rows in them for which there was nothing to do",
            chunk_ms="number: milliseconds that the longest took",
            chunk_size="integer: rows of the next chunk",
            processed="integer: of the whole run so far",
            planned="integer: rows counted at the start",
            rows_a_second="integer?: over about ten seconds",
            eta_seconds="number?: seconds left at that speed",
        ),
        _event(
            "backfill_throttled", "backfill, worker", "info", "The run waits.",
            run_id=_RUN,
            cause="string: one of a few words",
            reason="string: the same as a sentence with its numbers",
        ),
        _event("backfill_unthrottled", "backfill, worker", "info", "The run goes on.", run_id=_RUN),
        _event("backfill_finished", "backfill, worker", "info", "Every row was seen.", **_BACKFILL_COUNTS),
        _event("backfill_paused", "backfill, worker", "info", "Somebody paused the run.", **_BACKFILL_COUNTS),
        _event(
            "backfill_cancelled", "backfill, worker", "info", "Somebody ended the run for good.",
            **_BACKFILL_COUNTS,
        ),
        _event(
            "backfill_interrupted", "backfill, worker", "info", "This process ends; the run can be resumed.",
            **_BACKFILL_COUNTS,
        ),
        _event(
            "backfill_taken_over", "backfill, worker", "info", "Another process drives the run now.",
            **_BACKFILL_COUNTS,
        ),
        _event(
            "backfill_not_applied", "backfill", "warning", "No event of the run was settled for five s.",
            run_id=_RUN,
            pending="integer: events of the run that wait",
            hint="string: what to do",
        ),
        _event(
            "audit_started", "audit, worker", "info", "An audit begins.",
            run_id=_AUDIT,
            project_id=_SCOPE,
            repair="boolean: it appends events for what it finds",
            requested_by="string: `command`, `schedule`, `backfill` or `admin`",
            chunks_planned="integer: slices to compare",
        ),
        _event(
            "audit_progress", "audit, worker", "info", "How far it is, at most once a second.",
            run_id=_AUDIT,
            chunks_done="integer: slices compared",
            chunks_planned="integer: slices to compare",
            planned="integer: pairs counted apart from the comparison, so far",
            **_AUDIT_COUNTS,
            unsettled="integer: repair events that wait",
            still_seconds="number: seconds since one of them was settled",
        ),
        _event(
            "audit_finding", "audit, worker", "warning", "One pair that differs.",
            run_id=_AUDIT,
            collection_id=_COLLECTION,
            project_id=_PROJECT,
            kind="string: `missing`, `mismatched` or `orphaned`",
            differs="array: the columns that differ",
            legacy=f"object?: what should be there: {_FINDING_SIDE}; null: nothing",
            target=f"object?: what is there: {_FINDING_SIDE}; null: nothing",
        ),
        _event(
            "audit_repair_appended", "audit, worker", "info", "Events were appended for findings.",
            run_id=_AUDIT,
            appended="integer: events",
            without_collection="integer: findings whose collection is gone: no event can describe them",
        ),
        _event(
            "audit_finding_repaired", "audit, worker", "info warning",
            "A repaired pair was compared again. A warning when it is not known to agree.",
            run_id=_AUDIT,
            collection_id=_COLLECTION,
            project_id=_PROJECT,
            kind="string: as it was found",
            outcome="string: `repaired`, `still_differs` or `pending`",
            target=f"object?: what is there now: {_FINDING_SIDE}; null: nothing",
        ),
        _event(
            "audit_repair_verified", "audit, worker", "info warning",
            "Every repaired pair was compared again. A warning when one is not known to agree.",
            run_id=_AUDIT,
            repaired="integer: pairs that agree now",
            still_differs="integer: pairs that do not",
            pending="integer: pairs whose event waits",
        ),
        _event(
            "audit_finished", "audit, worker", "info error",
            "What came out. An error when drift is left, or nothing was proved.",
            run_id=_AUDIT,
            status="string: `finished` or `failed`",
            verdict="string?: `in_sync`, `pending`, `drift`, `repaired` or `incomplete`",
            error="string?: why it failed or is incomplete",
            project_id=_SCOPE,
            repair="boolean: it appended events for what it found",
            requested_by="string: `command`, `schedule`, `backfill` or `admin`",
            chunks_planned="integer: slices to compare",
            chunks_done="integer: slices compared",
            planned="integer: pairs counted apart from the comparison",
            **_AUDIT_COUNTS,
            repaired="integer: pairs that agree after their repair",
            canary_found="boolean?: the pass found every difference that was planted",
            unlisted="integer: pairs that differ and have no `audit_finding`",
            duration_ms="number: milliseconds",
        ),
        _event("rollback_chunk", "rollback", "info", "How far a rollback is.", **_ROLLBACK_COUNTS),
        _event("rollback_finished", "rollback", "info", "A rollback came to its end.", **_ROLLBACK_COUNTS),
        _event(
            "log_file_failed", "all", "error", "Lines go to stdout only from here on.",
            error="string: such as `ENOSPC`",
        ),
        _event(
            "log_file_restored", "all", "warning", "Lines go to the file again.",
            lost="integer: lines that the file lacks",
        ),
        _event(
            "log_file_not_rotated", "all", "error",
            "The file cannot be renamed, so it grows beyond 100 MiB. Tried again at each further MiB.",
            error="string: such as `EACCES`",
        ),
        _event(
            "library_message", "all", "info warning error critical",
            "A library has something to say, in its own words.",
            logger="string: which",
            message="string: what",
            exception="string~: the traceback",
            stack="string~: the stack",
        ),
    )
}  # fmt: skip


def problems(line: Mapping[str, Any]) -> list[str]:
    """Say in which ways a line breaks the contract; an empty list when it keeps it."""
    missing = [f"no field {name}" for name in COMMON if name not in line]
    if missing:
        return missing
    found = [f"{name} is {line[name]!r}" for name, field in COMMON.items() if not field.accepts(line[name])]
    if line["schema_version"] != LOG_VERSION:
        found.append(f"schema_version is {line['schema_version']}, not {LOG_VERSION}")
    if not TIMESTAMP.fullmatch(str(line["timestamp"])):
        found.append(f"timestamp is {line['timestamp']!r}")
    event = CONTRACT.get(line["event"])
    return [*found, f"unknown event {line['event']!r}"] if event is None else found + event.problems(line)


def _row(name: str, field: Field) -> str:
    kind = field.type + (" or null" if field.nullable else "") + (", may be absent" if field.optional else "")
    return f"| `{name}` | {kind} | {field.meaning} |"


def _table(fields: Mapping[str, Field]) -> list[str]:
    return ["", "| field | type | meaning |", "|---|---|---|", *(_row(*item) for item in fields.items())]


def made(written: str) -> str:
    """Return the page with everything after its mark made anew; what people wrote above it stays."""
    introduction, mark, _ = written.partition(MARK)
    lines = [introduction + mark, "", "## Fields of every line", *_table(COMMON), "", "## Events"]
    for event in CONTRACT.values():
        lines += ["", f"### {event.name}", "", f"From {event.writers}. Level {' or '.join(event.levels)}."]
        lines += [event.meaning, *(_table(event.fields) if event.fields else [])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
