"""What the API logs, and what operators do to dead letters; the doorbell's lines are also others'."""

from shared.logs.declaring import (
    AUDIT,
    COLLECTION,
    ERROR,
    EVENT_TYPE,
    LETTER_IDS,
    OUTAGE,
    PROJECT,
    SQLSTATE,
    TRACE,
    event,
)

API_EVENTS = (
    event(
        "dead_letters_replayed", "api, dead_letters", "info", "An operator replayed letters.",
        letters="integer: how many",
        no_collection="integer: how many could not be, because their collection is gone",
        event_ids=LETTER_IDS,
    ),
    event(
        "dead_letters_discarded", "api, dead_letters", "info", "An operator closed letters without a replay.",
        letters="integer: how many",
        event_ids=LETTER_IDS,
    ),
    event(
        "collection_written", "api", "info", "A write is committed.",
        action="string: `collection_created`, `collection_updated` or `collection_deleted`",
        collection_id=COLLECTION,
        project_id=PROJECT,
        event_id="integer: of the event appended with it",
        event_type=EVENT_TYPE,
        trace_id=TRACE,
    ),
    event(
        "overloaded", "api", "warning", "The first request refused for want of room.",
        lane="string: `reads`, `writes`, `admin` or `bodies`",
    ),
    event(
        "overload_over", "api", "info", "Requests are accepted again.",
        lane="string: as above",
        refused="integer: requests answered with 503 meanwhile",
    ),
    event(
        "database_unavailable", "api", "warning error",
        "A request was answered with 503. An error where waiting is not likely to help.",
        error=ERROR,
        sqlstate=SQLSTATE,
        method="string: of HTTP",
        route="string: the path's template, without ids",
        hint="string~: what to do",
    ),
    event(
        "request_failed", "api", "error", "A request was answered with 500: a defect.",
        error=ERROR,
        sqlstate=SQLSTATE,
        method="string: of HTTP",
        route="string: the path's template, without ids",
        frames="string: the stack, without the error's message",
    ),
    event(
        "verification_requested", "api", "info", "An administrator asked for an audit.",
        audit_id=AUDIT,
    ),
    event(
        "backfill_ordered", "api", "info", "An administrator started or changed a backfill.",
        order="string: what was asked for",
        run_id="integer?: the run: `backfill_runs.id`",
        status="string?: of the run",
    ),
    event(
        "doorbell_silent", "api, worker, backfill", "warning",
        "Redis takes no ring, or only some of it; workers find events within a second by themselves.",
        error=ERROR,
        **OUTAGE,
    ),
    event(
        "doorbell_restored", "api, worker, backfill", "info", "Redis takes rings again.",
        times=OUTAGE["times"],
    ),
    event(
        "doorbell_stopped", "api", "error", "The task that rings ended: a defect.",
        error=ERROR,
    ),
)  # fmt: skip
