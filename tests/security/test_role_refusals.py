"""The roles of `deploy/roles.sql`: what each may not."""

import asyncpg
import pytest

from tests.security.as_role import ROLES, connected

NOT_FOR_ANYBODY = [
    "SELECT password_hash FROM users",
    "SELECT * FROM users",
    "UPDATE users SET role = 'admin'",
    "INSERT INTO projects (project_id, project_name, owner_user_id) VALUES ('x', 'x', 'x')",
    "UPDATE projects SET owner_user_id = 'x'",
    "UPDATE project_collaborators SET is_active = true",
    "SELECT * FROM activity_logs",
    "UPDATE activity_logs SET description = ''",
    "DELETE FROM activity_logs",
    "SELECT article_title FROM article_collections",
    "DELETE FROM article_collections",
    "DELETE FROM collections",
    "TRUNCATE collections",
    "UPDATE collections SET collection_id = 'x'",
    "UPDATE collections SET project_id = 'x'",
    "UPDATE collections SET created_by = 'x'",
    "UPDATE project_collections SET tags = '[]'",
    "UPDATE project_collections SET project_id = 'x'",
    "TRUNCATE project_collections",
    "UPDATE outbox_events SET payload = '{}'",
    "UPDATE outbox_events SET aggregate_id = 'x'",
    "UPDATE outbox_events SET traceparent = NULL",
    (
        "INSERT INTO outbox_events (id, aggregate_id, event_type, source, payload)"
        " OVERRIDING SYSTEM VALUE VALUES (1, 'x', 'x', 'api', '{}')"
    ),
    "TRUNCATE outbox_events",
    "UPDATE outbox_dead_letters SET payload = '{}'",
    "UPDATE outbox_dead_letters SET traceparent = NULL",
    "UPDATE collection_sync_version SET version_num = '0'",
    "DELETE FROM backfill_runs",
    "DROP TABLE outbox_events",
    "ALTER TABLE collections DISABLE TRIGGER ALL",
    "CREATE TABLE ours (id integer)",
    "SET ROLE postgres",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('PG_VERSION')",
    "CREATE ROLE another",
]
FORBIDDEN = {
    "api": [
        "SELECT payload FROM outbox_events",
        "SELECT * FROM outbox_events",
        "DELETE FROM outbox_events",
        "UPDATE outbox_events SET attempts = 0",
        "SELECT id FROM outbox_events FOR UPDATE",
        "SELECT payload FROM outbox_dead_letters",
        "INSERT INTO outbox_dead_letters (id) VALUES (1)",
        "UPDATE outbox_dead_letters SET error = ''",
        "DELETE FROM outbox_dead_letters",
        "SELECT tags FROM project_collections",
        "INSERT INTO project_collections (project_id, collection_id) VALUES ('p1', 'x')",
        "UPDATE project_collections SET research_context = ''",
        "DELETE FROM project_collections",
        "DO 'BEGIN LOCK TABLE project_collections IN ACCESS SHARE MODE; END'",
        "SELECT nextval('project_collections_id_seq')",
        "CREATE TEMPORARY TABLE mine (LIKE project_collections)",
        "INSERT INTO applied_versions (collection_id, version) VALUES ('x', 1)",
        "UPDATE applied_versions SET version = 0",
        "DELETE FROM applied_versions",
        "SELECT note_count FROM collections",
        "UPDATE collections SET created_at = now()",
        "UPDATE audit_runs SET verdict = 'in_sync'",
        "DELETE FROM audit_runs",
        (
            "INSERT INTO audit_runs (status, verdict, requested_by, repair)"
            " VALUES ('finished', 'in_sync', 'admin', false)"
        ),
        "SELECT legacy FROM audit_findings",
        "UPDATE backfill_runs SET cursor_key = 'z'",
        "INSERT INTO worker_processes (name) VALUES ('x')",
        "UPDATE operator_acts SET actor = 'x'",
        "DELETE FROM operator_acts",
        "UPDATE idempotency_keys SET answer = '{}'",
        "DELETE FROM idempotency_keys",
    ],
    "worker": [
        "INSERT INTO collections (collection_id, project_id) VALUES ('x', 'p1')",
        "UPDATE collections SET description = ''",
        "UPDATE collections SET is_active = false",
        "UPDATE collections SET updated_at = now()",
        "SELECT user_id FROM users",
        "SELECT owner_user_id FROM projects",
        "SELECT user_id FROM project_collaborators",
        "INSERT INTO activity_logs (activity_id) VALUES ('x')",
        "SELECT article_pmid FROM article_collections",
        "INSERT INTO project_collections (project_id, collection_id, tags) VALUES ('p1', 'x', '[]')",
        "UPDATE project_collections SET linked_project_question_ids = '{}'",
        "SELECT payload FROM outbox_dead_letters",
        "SELECT traceparent FROM outbox_dead_letters",
        "INSERT INTO backfill_runs (status) VALUES ('running')",
        "SELECT version_num FROM collection_sync_version",
        "SELECT answer FROM idempotency_keys",
        "SELECT actor FROM operator_acts",
        "SELECT message FROM outbox_dead_letters",
    ],
    "operator": [
        "INSERT INTO collections (collection_id, project_id) VALUES ('x', 'p1')",
        "UPDATE collections SET description = ''",
        "SELECT user_id FROM users",
        "SELECT owner_user_id FROM projects",
        "INSERT INTO activity_logs (activity_id) VALUES ('x')",
        "INSERT INTO project_collections (project_id, collection_id) VALUES ('p1', 'x')",
        "UPDATE project_collections SET research_context = ''",
        "UPDATE applied_versions SET version = 0",
        "INSERT INTO applied_versions (collection_id, appended_at) VALUES ('x', now())",
        "INSERT INTO outbox_dead_letters (id) VALUES (1)",
        "UPDATE outbox_dead_letters SET error = ''",
        "DELETE FROM outbox_dead_letters",
        "DELETE FROM worker_processes",
    ],
    "reader": [
        "SELECT payload FROM outbox_events",
        "SELECT payload FROM outbox_dead_letters",
        "SELECT legacy FROM audit_findings",
        "SELECT target FROM audit_findings",
        "SELECT driver_token FROM backfill_runs",
        "SELECT user_id FROM users",
        "SELECT project_id FROM projects",
        "SELECT description FROM collections",
        "SELECT collection_name FROM collections",
        "SELECT research_context FROM project_collections",
        "SELECT tags FROM project_collections",
        "INSERT INTO outbox_events (aggregate_id, source, payload) VALUES ('x', 'api', '{}')",
        "DELETE FROM outbox_events",
        "UPDATE outbox_dead_letters SET state = 'discarded'",
        "UPDATE collections SET note_count = 0",
        "SELECT collection_id FROM collections FOR SHARE",
        "INSERT INTO audit_runs (status, requested_by, repair) VALUES ('requested', 'admin', false)",
        "UPDATE backfill_runs SET status = 'cancelled'",
        "DELETE FROM project_collections",
        "UPDATE applied_versions SET version = 0",
        "DELETE FROM worker_processes",
        "CREATE TEMPORARY TABLE mine (LIKE collections)",
    ],
    "scaler": [
        "SELECT * FROM outbox_events",
        "SELECT payload FROM outbox_events",
        "SELECT aggregate_id FROM outbox_events",
        "SELECT event_type FROM outbox_events",
        "SELECT id FROM outbox_events FOR UPDATE",
        "UPDATE outbox_events SET attempts = 0",
        "DELETE FROM outbox_events",
        "INSERT INTO outbox_events (aggregate_id, source, payload) VALUES ('x', 'api', '{}')",
        "SELECT id FROM outbox_dead_letters",
        "SELECT collection_id FROM collections",
        "SELECT collection_id FROM project_collections",
        "SELECT version FROM applied_versions",
        "SELECT status FROM backfill_runs",
        "SELECT verdict FROM audit_runs",
        "SELECT name FROM worker_processes",
        "SELECT version_num FROM collection_sync_version",
        "SELECT project_id FROM projects",
        "SELECT user_id FROM users",
        "CREATE TEMPORARY TABLE mine (LIKE outbox_events)",
    ],
}


@pytest.mark.parametrize("role", ROLES)
async def test_what_a_role_has_no_business_with_is_refused_with_42501(
    role: str, urls: dict[str, str]
) -> None:
    answers = {}
    async with connected(urls[role]) as connection:
        for statement in NOT_FOR_ANYBODY + FORBIDDEN[role]:
            try:
                await connection.execute(statement)
                answers[statement] = "done"
            except asyncpg.PostgresError as error:
                answers[statement] = error.sqlstate
    assert {statement: answer for statement, answer in answers.items() if answer != "42501"} == {}
