-- Least privilege for each process: five roles that nobody can log in as, and what each may do.
--
-- Run it as the owner of the tables, who must be allowed to create roles, with any client:
--
--     alembic upgrade head
--     psql --set=ON_ERROR_STOP=1 --file=deploy/roles.sql "$OWNER_URL"
--
-- then give each process a login of its own, with a password that stands in no file of this repository,
--
--     CREATE ROLE sync_api LOGIN PASSWORD '...' IN ROLE collection_sync_api;
--     CREATE ROLE sync_worker LOGIN PASSWORD '...' IN ROLE collection_sync_worker;
--     CREATE ROLE sync_operator LOGIN PASSWORD '...' IN ROLE collection_sync_operator;
--     CREATE ROLE sync_dashboard LOGIN PASSWORD '...' IN ROLE collection_sync_reader;
--     CREATE ROLE sync_scaler LOGIN PASSWORD '...' IN ROLE collection_sync_scaler;    -- where KEDA scales
--
-- and run it once more: its last statement sets the time limits of these logins. Run it also after every
-- `alembic upgrade head`: new tables and columns belong to nobody but their owner until it says otherwise.
-- It may be run at any time and any number of times. It is one transaction, and what it does not grant it
-- takes back from these five roles; it never touches what others may do.
--
-- Left alone, because the database belongs to the monolith: what PUBLIC may do. Check two things yourself.
-- A database from before PostgreSQL 15 still lets everybody create tables in the schema public, ours too
-- (REVOKE CREATE ON SCHEMA public FROM PUBLIC). Everybody may connect, and make temporary tables, which
-- the audit needs: whoever revokes TEMPORARY from PUBLIC keeps it for workers and operators, as below.

BEGIN;

DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY[
        'collection_sync_api', 'collection_sync_worker', 'collection_sync_operator', 'collection_sync_reader',
        'collection_sync_scaler'
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role_name);
    END LOOP;
    EXECUTE format(
        'GRANT TEMPORARY ON DATABASE %I TO collection_sync_worker, collection_sync_operator',
        current_database()
    );
END
$$;

GRANT USAGE ON SCHEMA public
    TO collection_sync_api, collection_sync_worker, collection_sync_operator, collection_sync_reader,
    collection_sync_scaler;

-- The privileges of columns go with those of their table.
REVOKE ALL ON
    users, projects, project_collaborators, collections, article_collections, activity_logs,
    project_collections, outbox_events, applied_versions, outbox_dead_letters, backfill_runs, audit_runs,
    audit_findings, worker_processes, collection_sync_version, operator_acts, idempotency_keys,
    capture_settings, captured_writes, captured_counts, captured_writers,
    migration_phase, phase_turns, shadow_counts, shadow_findings, going_back_losses, visible_collections
    FROM collection_sync_api, collection_sync_worker, collection_sync_operator, collection_sync_reader,
    collection_sync_scaler;
REVOKE ALL ON SEQUENCE
    project_collections_id_seq, outbox_events_id_seq, backfill_runs_id_seq, audit_runs_id_seq,
    worker_processes_id_seq
    FROM collection_sync_api, collection_sync_worker, collection_sync_operator, collection_sync_reader,
    collection_sync_scaler;

REVOKE ALL ON FUNCTION collections_of_project(text)
    FROM PUBLIC, collection_sync_api, collection_sync_worker, collection_sync_operator, collection_sync_reader,
    collection_sync_scaler;

-- The API: legacy rows as the endpoints use them; events it may append, without reading what they hold;
-- project_collections it may read and never write.

GRANT SELECT (user_id, email) ON users TO collection_sync_api;
GRANT SELECT (project_id, owner_user_id) ON projects TO collection_sync_api;
GRANT SELECT (project_id, user_id, is_active) ON project_collaborators TO collection_sync_api;
GRANT SELECT (collection_id, article_pmid) ON article_collections TO collection_sync_api;
GRANT INSERT (activity_id, project_id, user_id, activity_type, description, activity_metadata)
    ON activity_logs TO collection_sync_api;
-- UPDATE of some column is what a row lock needs as well; a collection's id, its home and its maker stay.
GRANT
    SELECT (
        collection_id, project_id, collection_name, description, created_by, created_at, updated_at,
        is_active, color, icon, sort_order, linked_hypothesis_ids, linked_question_ids, collection_purpose,
        auto_update
    ),
    INSERT (
        collection_id, project_id, collection_name, description, created_by, is_active, color, icon,
        sort_order, linked_hypothesis_ids, linked_question_ids, collection_purpose, auto_update
    ),
    UPDATE (
        collection_name, description, updated_at, is_active, color, icon, linked_hypothesis_ids,
        linked_question_ids, collection_purpose, auto_update
    )
    ON collections TO collection_sync_api;

GRANT
    SELECT (id, aggregate_id, created_at),
    INSERT (aggregate_id, event_type, source, payload, traceparent, schema_version)
    ON outbox_events TO collection_sync_api;
GRANT SELECT (collection_id, version, appended_at, dated_version) ON applied_versions TO collection_sync_api;
GRANT
    SELECT (
        id, aggregate_id, event_type, source, created_at, died_at, sqlstate, error, attempts, state,
        closed_at, replayed_as, traceparent, message, detail, hint
    ),
    UPDATE (state, closed_at, replayed_as)
    ON outbox_dead_letters TO collection_sync_api;
GRANT
    SELECT,
    INSERT (status, in_worker, project_id, rate, max_pending, chunk_size, planned, end_key),
    UPDATE (status, in_worker, throttled_by, driver_token, heartbeat_at, finished_at)
    ON backfill_runs TO collection_sync_api;
GRANT SELECT, INSERT (status, requested_by, project_id, repair) ON audit_runs TO collection_sync_api;
GRANT SELECT ON collection_sync_version TO collection_sync_api;
-- What the console shows beside that; of the target what it compares, which the API may read in collections.
GRANT SELECT ON worker_processes TO collection_sync_api;
GRANT SELECT (
    audit_run_id, collection_id, project_id, kind, found_at, repair_event_id, outcome
) ON audit_findings TO collection_sync_api;
GRANT SELECT (event_type, source, attempts, lane, schema_version, traceparent) ON outbox_events
    TO collection_sync_api;
GRANT SELECT (project_id, is_deleted, found_row) ON applied_versions TO collection_sync_api;
GRANT SELECT (id, project_id, collection_id, research_context, created_at, updated_at) ON project_collections
    TO collection_sync_api;
GRANT SELECT, INSERT (actor, act, subject, outcome) ON operator_acts TO collection_sync_api;
GRANT SELECT, INSERT (user_id, project_id, key, fingerprint, answer) ON idempotency_keys TO collection_sync_api;
-- Lists: the view asks a function that has its owner's rights, so a role that reads it needs both. The API compares a sample of them, and turns the phase where the
-- console is opened by a token, or where a comparison found a mismatch.
GRANT SELECT ON visible_collections, going_back_losses TO collection_sync_api;
GRANT EXECUTE ON FUNCTION collections_of_project(text) TO collection_sync_api;
GRANT SELECT, UPDATE (phase, epoch, since, actor, falls_back) ON migration_phase
    TO collection_sync_api, collection_sync_operator;
GRANT SELECT, INSERT ON phase_turns TO collection_sync_api, collection_sync_operator;
GRANT SELECT, INSERT, UPDATE ON shadow_counts, shadow_findings TO collection_sync_api;
-- Nobody needs a right to draw from these: the ids are identity columns. To read them shows that they are right.
GRANT SELECT ON SEQUENCE outbox_events_id_seq, backfill_runs_id_seq, audit_runs_id_seq
    TO collection_sync_api, collection_sync_worker, collection_sync_operator;
GRANT SELECT ON SEQUENCE worker_processes_id_seq, project_collections_id_seq
    TO collection_sync_worker, collection_sync_operator;

-- The worker: the only one that writes project_collections, and of it only what is projected.

-- All columns: the canary of the release before makes temporary tables LIKE these, which asks for the whole
-- table. The update of note_count is for FOR SHARE, without which no backfill and no repair can hold a row still:
-- PostgreSQL locks rows only for those who may update some column. This one is a count that the monolith
-- can make anew; no part of this system reads it, and it is not projected.
GRANT SELECT, UPDATE (note_count) ON collections TO collection_sync_worker, collection_sync_operator;
GRANT
    SELECT,
    INSERT (project_id, collection_id, research_context, created_at, updated_at),
    UPDATE (research_context, created_at, updated_at),
    DELETE
    ON project_collections TO collection_sync_worker;
GRANT USAGE ON SEQUENCE project_collections_id_seq TO collection_sync_worker;
GRANT
    SELECT,
    INSERT (aggregate_id, event_type, source, payload, traceparent, schema_version),
    UPDATE (attempts),
    DELETE
    ON outbox_events TO collection_sync_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON applied_versions TO collection_sync_worker;
GRANT
    SELECT (id, aggregate_id, created_at, sqlstate, error, attempts, closed_at),
    INSERT,
    UPDATE (died_at, sqlstate, error, attempts, state, closed_at, replayed_as, message, detail, hint),
    DELETE
    ON outbox_dead_letters TO collection_sync_worker;
GRANT SELECT (created_at), DELETE ON idempotency_keys TO collection_sync_worker;
-- What the capture in the database saw, which the worker counts. It is written by the capture's function, as its
-- owner: no writer of `collections` needs a right on our tables.
GRANT SELECT, UPDATE (captured_at), DELETE ON captured_writes TO collection_sync_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON captured_counts, captured_writers TO collection_sync_worker;
GRANT SELECT ON capture_settings, captured_writes, captured_counts, captured_writers
    TO collection_sync_api, collection_sync_worker, collection_sync_operator, collection_sync_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON worker_processes TO collection_sync_worker;
-- What the cutover needs: workers count what going back would lose, and remove old counts of comparisons.
GRANT SELECT, INSERT, UPDATE, DELETE ON going_back_losses TO collection_sync_worker;
GRANT SELECT, DELETE ON shadow_counts, shadow_findings TO collection_sync_worker;
GRANT SELECT ON migration_phase, phase_turns TO collection_sync_worker, collection_sync_reader;
GRANT SELECT ON shadow_counts, shadow_findings, going_back_losses
    TO collection_sync_operator, collection_sync_reader;
-- The database's identity, by which API, worker and commands find each other in Redis.
GRANT SELECT (database_id) ON collection_sync_version TO collection_sync_worker;
-- Not granted: pg_read_all_stats. Without it the worker's log names a session that holds a snapshot, but
-- not its state and age; with it the worker could read the text of everybody's queries.
GRANT
    SELECT,
    UPDATE (
        status, chunk_size, cursor_key, processed, enqueued, skipped, missing, mismatched, orphaned,
        last_event_id, throttled_by, slowed_by, driver, driver_token, heartbeat_at, finished_at
    )
    ON backfill_runs TO collection_sync_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON audit_runs, audit_findings
    TO collection_sync_worker, collection_sync_operator;

-- The operator: the commands. It appends events, looks into dead letters, and takes phase 1 back.

GRANT SELECT (project_id) ON projects TO collection_sync_operator;
GRANT
    SELECT,
    INSERT (aggregate_id, event_type, source, payload, traceparent, schema_version),
    UPDATE (attempts),
    DELETE
    ON outbox_events TO collection_sync_operator;
GRANT SELECT, UPDATE (state, closed_at, replayed_as) ON outbox_dead_letters TO collection_sync_operator;
GRANT
    SELECT,
    INSERT (status, in_worker, project_id, rate, max_pending, chunk_size, planned, end_key),
    UPDATE (
        status, in_worker, chunk_size, cursor_key, processed, enqueued, skipped, missing, mismatched,
        orphaned, last_event_id, throttled_by, slowed_by, driver, driver_token, heartbeat_at, finished_at,
        rate
    )
    ON backfill_runs TO collection_sync_operator;
GRANT SELECT ON worker_processes, collection_sync_version, operator_acts TO collection_sync_operator;
-- DELETE is the rollback's; with it comes its lock on applied_versions.
GRANT SELECT, DELETE ON project_collections, applied_versions TO collection_sync_operator;
-- A backfill leaves a guard where no event is needed.
GRANT INSERT (collection_id, version, project_id, is_deleted, found_row, row_id)
    ON applied_versions TO collection_sync_operator;

-- The reader: numbers, ids and states for dashboards; never what users wrote.

GRANT SELECT ON audit_runs, worker_processes, collection_sync_version, applied_versions, operator_acts
    TO collection_sync_reader;
GRANT SELECT (
    id, status, in_worker, project_id, rate, max_pending, chunk_size, cursor_key, end_key, planned,
    processed, enqueued, skipped, missing, mismatched, orphaned, last_event_id, throttled_by, slowed_by,
    driver, started_at, heartbeat_at, finished_at
) ON backfill_runs TO collection_sync_reader;
GRANT SELECT (
    audit_run_id, collection_id, project_id, kind, found_at, repair_event_id, outcome
) ON audit_findings TO collection_sync_reader;
GRANT SELECT (id, aggregate_id, event_type, source, created_at, lane, attempts, traceparent, schema_version)
    ON outbox_events TO collection_sync_reader;
GRANT SELECT (
    id, aggregate_id, event_type, source, created_at, died_at, sqlstate, error, attempts, state, closed_at,
    replayed_as, traceparent
) ON outbox_dead_letters TO collection_sync_reader;
GRANT SELECT (collection_id, project_id, is_active) ON collections TO collection_sync_reader;
GRANT SELECT (collection_id, project_id) ON project_collections TO collection_sync_reader;

-- The scaler: KEDA asks how long the oldest live event has waited, and need not know of which collection.

GRANT SELECT (id, lane, created_at) ON outbox_events TO collection_sync_scaler;

-- A second line behind the limits that our processes set for their own sessions, which win: it holds for
-- whoever logs in as them with another client. PostgreSQL reads such settings from the role that logs in,
-- never from one that it is a member of, so each login gets them, in this database. A login in several of
-- the roles gets the longest. Any session may still change its own: this stops accidents, not attackers.
-- Where the login is not ours to alter, a warning says what is to be set.
-- The scaler keeps the plan that it made, mostly of an empty outbox, and must not read all of a full one by it:
-- without sorts there is but the index that has the order. So its login is for KEDA alone.
DO $$
DECLARE
    setting record;
BEGIN
    FOR setting IN
        SELECT login.rolname AS login, limits.name, limits.value
        FROM (VALUES
            (1, 'collection_sync_scaler', 'statement_timeout', '2s'),
            (1, 'collection_sync_scaler', 'lock_timeout', '1s'),
            (1, 'collection_sync_scaler', 'enable_sort', 'off'),
            (2, 'collection_sync_api', 'statement_timeout', '10s'),
            (2, 'collection_sync_api', 'lock_timeout', '5s'),
            (3, 'collection_sync_reader', 'statement_timeout', '30s'),
            (3, 'collection_sync_reader', 'lock_timeout', '2s'),
            (4, 'collection_sync_worker', 'statement_timeout', '30s'),
            (4, 'collection_sync_worker', 'lock_timeout', '10s'),
            (5, 'collection_sync_operator', 'statement_timeout', '60s'),
            (5, 'collection_sync_operator', 'lock_timeout', '10s'),
            (0, NULL, 'idle_in_transaction_session_timeout', '10s')
        ) AS limits (rank, role_name, name, value)
        JOIN pg_roles AS granted
            ON granted.rolname = limits.role_name
            OR limits.role_name IS NULL AND granted.rolname IN (
                'collection_sync_api', 'collection_sync_worker', 'collection_sync_operator',
                'collection_sync_reader', 'collection_sync_scaler'
            )
        JOIN pg_auth_members AS membership ON membership.roleid = granted.oid
        JOIN pg_roles AS login ON login.oid = membership.member AND login.rolcanlogin
        ORDER BY limits.rank
    LOOP
        BEGIN
            EXECUTE format(
                'ALTER ROLE %I IN DATABASE %I SET %I = %L',
                setting.login, current_database(), setting.name, setting.value
            );
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE WARNING 'login % was made by somebody else, who must set its % to %',
                setting.login, setting.name, setting.value;
        END;
    END LOOP;
END
$$;

COMMIT;
