"""What workers log: their life, their batches, and what they keep in order."""

from shared.logs.declaring import COLLECTION, ERROR, EVENT_TYPE, LETTER_IDS, OUTAGE, SQLSTATE, TRACE, event

OUTCOMES = {
    "applied": "integer: events whose state is in `project_collections` now",
    "stale": "integer: events older than what was applied before",
    "conflated": "integer: events of which a newer one was in the same batch",
    "obsolete": "integer: events whose project or collection is gone, or that the legacy table belies",
    "dead": "integer: events that became dead letters",
    "postponed": "integer: events that stay pending, for no known fault of their own",
}
HOLDER = {
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

WORKER_EVENTS = (
    event(
        "worker_started", "worker", "info", "A worker begins.",
        worker="string: `host:pid:drawn`",
        pid="integer: its process id",
        health_key="string: its key in Redis",
    ),
    event(
        "worker_stopped", "worker", "info", "A worker ended in good order.",
        worker="string: `host:pid:drawn`",
        pid="integer: its process id",
    ),
    event(
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
        read_only="boolean~: new sessions may write nothing: default_transaction_read_only is on",
        held_by="array~: where something has waited for two seconds, or for a lock: who holds it up, three"
        " at most, each with pid, application, role, held_seconds, waiting and waited_seconds",
        backfill="object~: the run begun last, as it is in `backfill_runs`, its moments in seconds since"
        " 1970; empty: none was begun yet",
        backfilled_at="number~: when the last run over all projects finished that no rollback has taken back,"
        " in seconds since 1970",
        rollback="object~: the last one before the worker began, or found PostgreSQL again: `status`, which"
        " is `failed` until it has ended, and `ended_at` in seconds since 1970; empty: none",
        phase="string~: of the cutover: `legacy_only`, `outbox`, `verified`, `shadow_reads` or `reads_moved`",
        epoch="integer~: one more with each turn of the phase",
        phase_since="number~: when it was turned last, in seconds since 1970, by PostgreSQL's clock",
        fell_back="boolean~: that turn was back, and by itself, for a mismatch",
        phase_reason="string~: why it was turned, where that was said",
        lists_mismatched="integer~: while reads are moved, lists that differed since without a reason",
        hint="string?~: what to do, where PostgreSQL is unfit, or Redis refuses",
    ),
    event(
        "batch_settled", "worker", "info",
        "One transaction of {claim, apply, acknowledge}, and of it one lane. A batch with repair and"
        " backfill events has a line for each.",
        wake="string: what woke the worker: `doorbell`, `sweep` or `poll`",
        lane="string: `live`, `repair` or `backfill`",
        claimed="integer: events; the sum of the six outcomes",
        **OUTCOMES,
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
    event(
        "event_settled", "worker", "info error",
        "What became of one event; an error when it is dead. Of events that a backfill had applied,"
        " one in a thousand has a line.",
        event_id="integer: `outbox_events.id`, the version",
        collection_id=COLLECTION,
        project_id="string?: the home project; null when the payload names none",
        event_type=EVENT_TYPE,
        source="string: `api`, `capture`, `repair` or `backfill`",
        outcome="string: `applied`, `stale`, `conflated`, `obsolete` or `dead`",
        lag_ms="number: milliseconds from the event's append to the end of its batch",
        sqlstate="string?~: where PostgreSQL refused it, its code",
        error="string~: why it could not be applied, without a value that a user wrote",
        trace_id=TRACE,
        one_of="integer~: the line stands for this many events",
    ),
    event(
        "events_postponed", "worker", "warning", "Events of a batch could not be applied now; they wait.",
        events="integer: how many",
        first_event_id="integer: the first of them",
        collection_id=COLLECTION,
        sqlstate=SQLSTATE,
        error="string?: why the first could not be applied",
    ),
    event(
        "batch_failed", "worker", "warning error",
        "A batch changed nothing; it is tried again. A warning where that is likely to help.",
        transient="boolean: it passes by itself",
        error=ERROR,
        sqlstate=SQLSTATE,
        failures="integer: in a row",
        hint="string~: what to do",
    ),
    event(
        "unknown_versions_wait", "worker", "warning",
        "Events wait that this worker leaves to a later one; again each minute.",
        events="integer: how many; counted up to 200,000",
        known_version="integer: the newest version that this worker knows",
        newest_version="integer: the newest version that waits",
        hint="string: what to do",
    ),
    event(
        "unknown_versions_settled", "worker", "info", "None of them waits any more.",
        known_version="integer: the newest version that this worker knows",
    ),
    event(
        "job_unfinished", "worker", "warning",
        "Only release 0.1.0 logs it: a job ended in an error; no event is lost by it.",
        error=ERROR,
    ),
    event(
        "redis_lost", "worker", "warning",
        "Redis is silent, or refuses something; PostgreSQL is asked five times a second.",
        error=ERROR,
        **OUTAGE,
    ),
    event(
        "redis_restored", "worker", "info", "Redis answers again, and refuses nothing.",
        times=OUTAGE["times"],
    ),
    event(
        "strangers_dropped", "worker", "warning",
        "Our queue in Redis held what is no job of ours; the worker removed it unread. Logged once a"
        " minute.",
        queue="string: the queue's key",
        entries="integer: removed since the line before; a key of another type counts as one",
    ),
    event(
        "duty_failed", "worker", "warning error", "The first of a row of failures of something periodic.",
        duty="string: `backfill`, `audit`, `presence`, `dead letters`, `snapshots`, `heartbeat`,"
        " `tombstones`, `idempotency keys`, `captured writes`, `losses`,"
        " `metrics` or `identity`: of the database,"
        " without which no ring is heard",
        error=ERROR,
        sqlstate=SQLSTATE,
        hint="string~: what to do",
    ),
    event(
        "snapshot_held", "worker", "warning",
        "Who has kept PostgreSQL from forgetting acknowledged events for ten seconds; again each minute.",
        **HOLDER,
    ),
    event(
        "going_back_counted", "worker", "info",
        "What `project_collections` holds and going back would lose, where lists are compared or reads are"
        " moved: about once a minute, by one worker.",
        further_links="integer: rows that link a collection to another project than its home",
        tags="integer: rows with tags",
        mappings="integer: rows with questions or hypotheses mapped",
        contexts="integer: rows whose context is not the description",
        without_home="integer: collections that are linked somewhere and not in their home",
        took_seconds="number: that the count took",
    ),
    event("snapshot_released", "worker", "info", "The same does so no longer.", **HOLDER),
    event(
        "dead_letters_superseded", "worker", "info",
        "A newer event of its collection closed a letter: it was applied, or died as well.",
        letters="integer: how many",
        event_ids=LETTER_IDS,
    ),
    event(
        "dead_letters_pruned", "worker", "info", "Letters closed long ago were removed.",
        letters="integer: how many",
    ),
    event(
        "tombstones_pruned", "worker", "info", "Tombstones that nothing can need any more were removed.",
        tombstones="integer: how many",
    ),
    event(
        "idempotency_keys_pruned", "worker", "info",
        "Keys of creations that are older than a day were forgotten.",
        keys="integer: how many",
    ),
    event(
        "writes_captured", "worker", "warning",
        "Writes of `collections` that appended no event, as a capture in the database saw them. Each is"
        " counted once, by one worker.",
        role="string: who had logged in",
        application="string: its `application_name`; may be empty",
        operation="string: `insert`, `update`, `delete` or `truncate`",
        writes="integer: since the worker counted before",
        last_at="string: when the last of them ended; UTC, ISO 8601, by PostgreSQL's clock",
    ),
)  # fmt: skip
