"""Every number on the page, after a run of everything there is to see, is what the database says."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.dashboard.scripted import (
    OLD_ROWS,
    System,
    hold_a_row,
    moment_of,
    odd_events,
    plant_drift,
    poison,
    system,
    users_write,
)
from tests.processes import environment
from worker.dashboard.page_state import PageState

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
LANES = ("live", "repair", "backfill")
OUTCOMES = """
    SELECT lane, outcome, count(*) FROM (
        SELECT lane, CASE
            WHEN EXISTS (SELECT FROM outbox_dead_letters AS letter WHERE letter.id = one.id) THEN 'dead'
            WHEN NOT project_is_there THEN 'obsolete'
            WHEN version = id THEN 'applied'
            WHEN EXISTS (SELECT FROM settled AS other WHERE other.batch = one.batch
                AND other.aggregate_id = one.aggregate_id AND other.id > one.id) THEN 'conflated'
            WHEN version > id THEN 'stale'
        END AS outcome
        FROM settled AS one) AS each
    GROUP BY lane, outcome
"""
AUDITS = """
    SELECT id, verdict, requested_by, project_id, repair, compared, missing, mismatched, orphaned, pending,
        repaired, error, extract(epoch FROM finished_at)::float8 AS at,
        extract(epoch FROM finished_at - started_at)::float8 AS seconds
    FROM audit_runs WHERE status IN ('finished', 'failed') ORDER BY finished_at
"""
FINDINGS = """
    SELECT finding.*, extract(epoch FROM found_at)::float8 AS at,
        (SELECT to_jsonb(home) FROM project_collections AS home
            WHERE home.collection_id = finding.collection_id
            AND home.project_id = finding.project_id) AS now_there
    FROM audit_findings AS finding
"""
LETTERS = """
    SELECT id, aggregate_id, payload ->> 'project_id' AS project_id, event_type, source, sqlstate, error,
        state, extract(epoch FROM died_at)::float8 AS at, extract(epoch FROM closed_at)::float8 AS closed_at
    FROM outbox_dead_letters
"""
BACKFILLS = """
    SELECT id, status, processed, planned, enqueued, skipped, driver, project_id,
        extract(epoch FROM started_at)::float8 AS started_at,
        extract(epoch FROM finished_at)::float8 AS finished_at
    FROM backfill_runs ORDER BY id DESC
"""


@pytest.mark.wide
@pytest.mark.slow
async def test_every_number_is_what_the_database_says(
    database_url: str, redis_url: str, tmp_path: Path, sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    env = environment(database_url, redis_url)
    async with system(env, tmp_path, sql, engine) as run:
        await run.worker.wait_for("audit_finished")  # the next one by itself is a minute away
        await sql.execute(OLD_ROWS)
        collection_id = await users_write(run)
        await odd_events(run)
        await run.command("worker.backfill", "--wait")
        await poison(run, collection_id)
        began = time.monotonic()
        held = await hold_a_row(run, database_url)
        held_for = time.monotonic() - began
        await run.drained()
        await run.heartbeat(pending_live=0)
        await plant_drift(run)
        await run.command("worker.audit", status=1)
        drifted = run.page_state()
        await run.command("worker.audit", "--project", "p2", status=1)
        await run.command("worker.audit", "--repair")
        repaired = run.page_state()
        await run.command("worker.audit")
        await run.heartbeat(dead_letters=1, pending_live=0)
        shown = run.page_state()
        await the_numbers_agree(sql, run, shown)
        the_answers_were_right(held, drifted, repaired, shown)
        assert 0 < (held.waiting["live"].oldest_seconds or 0) <= held_for
        [worker] = shown.workers
        assert (worker.name.split(":")[-2], worker.state) == (str(run.worker.pid), "running")
    assert [worker.state for worker in run.page_state().workers] == ["stopped"]


def the_answers_were_right(held: PageState, drifted: PageState, repaired: PageState, end: PageState) -> None:
    assert held.waiting["live"].pending == 1
    assert (drifted.verdict.title, drifted.go_on.may) == ("Drift: 3", False)
    assert not repaired.go_on.may
    assert (end.verdict.title, end.go_on.may) == ("In sync but for one dead letter", False)
    assert all(repaired.made_at - 60 < (finding.agreed_at or 0) <= end.made_at for finding in end.findings)


async def the_numbers_agree(sql: asyncpg.Connection, run: System, shown: PageState) -> None:
    assert shown.source.broken == shown.source.unknown == shown.source.newer_schema == 0
    await lanes_agree(sql, shown)
    await lags_agree(sql, run, shown)
    moments = run.moments()
    await audits_agree(sql, shown, moments)
    await findings_agree(sql, shown, moments)
    await letters_agree(sql, shown, moments)
    await backfills_agree(sql, shown, moments)
    written = await sql.fetchval("SELECT count(*) FROM activity_logs")
    assert [sum(series.written) for series in shown.series.values()] == [written] * 4
    assert [lane.pending for lane in shown.waiting.values()] == [0, 0, 0]
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0


async def lanes_agree(sql: asyncpg.Connection, shown: PageState) -> None:
    expected = {(LANES[row["lane"]], row["outcome"]): row["count"] for row in await sql.fetch(OUTCOMES)}
    counted = {
        (lane.name, outcome): count
        for lane in shown.lanes
        for outcome, count in lane.outcomes.items()
        if count
    }
    assert counted == expected
    assert {outcome for _, outcome in counted} == {"applied", "stale", "conflated", "obsolete", "dead"}
    assert {lane for lane, _ in counted} == set(LANES)
    for series in shown.series.values():
        over_time = {
            (lane, outcome): sum(counts)
            for lane, by_outcome in series.settled.items()
            for outcome, counts in by_outcome.items()
            if sum(counts)
        }
        assert over_time == expected
    batches = await sql.fetch("SELECT lane, count(DISTINCT batch) FROM settled GROUP BY lane")
    assert {lane.name: lane.batches for lane in shown.lanes} == {
        LANES[row["lane"]]: row["count"] for row in batches
    }
    postponed = [trouble.count for trouble in shown.troubles if trouble.event == "events_postponed"]
    assert [lane.postponed for lane in shown.lanes] == [sum(postponed), 0, 0] != [0, 0, 0]


async def lags_agree(sql: asyncpg.Connection, run: System, shown: PageState) -> None:
    """Hold the percentiles against each event's lag in the log, and those lags against the database."""
    for place, lane in enumerate(shown.lanes):
        rows = await sql.fetch("SELECT * FROM settled WHERE lane = $1 ORDER BY id, age_ms", place)
        lines = [line for line in run.worker.logged("batch_settled") if line["lane"] == lane.name]
        most_ms = most_lags(rows, lines)
        in_database = sorted(row["age_ms"] for row in rows)
        for name, share in SHARES.items():
            least, most = at_share(in_database, share), at_share(sorted(most_ms), share)
            assert 0.95 * least - 20 <= (lane.lag_ms[name] or 0) <= 1.05 * most + 20
            overall = [series.lag_overall[lane.name][name] for series in shown.series.values()]
            assert overall == [lane.lag_ms[name]] * 4
        if lane.name == "backfill":  # of whose events one in a thousand is logged
            continue
        known = {row["id"] for row in rows}
        logged = sorted((event_id, lag) for event_id, lag in run.logged_lags() if event_id in known)
        for row, most, (event_id, lag_ms) in zip(rows, most_ms, logged, strict=True):
            assert event_id == row["id"]
            assert row["age_ms"] - 5 <= lag_ms <= most + 5
        for name, share in SHARES.items():
            lag_ms = at_share(sorted(lag for _, lag in logged), share)
            assert lane.lag_ms[name] == pytest.approx(lag_ms, rel=0.05)


def most_lags(rows: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return what each event's lag may be at most, in milliseconds: its batch had been logged by then.

    A lag is the event's age when it was claimed and all the time that its batch took, the claim's included.
    """
    committed = {row["batch"]: row["created_at"].timestamp() * 1000 + row["age_ms"] for row in rows}
    line_of = dict(zip(sorted(committed, key=lambda batch: committed[batch]), lines, strict=True))
    return [
        (moment_of(line) - row["created_at"].timestamp()) * 1000 + line["duration_ms"]
        for row in rows
        for line in [line_of[row["batch"]]]
    ]


def assert_moment(shown: float | None, since: float, moments: Sequence[float]) -> None:
    """Hold a moment on the page against the lines' own, and what it is of against the database."""
    assert shown is not None
    assert round(shown, 3) in moments
    assert shown > since - 0.1


def at_share(ordered: Sequence[float], share: float) -> float:
    return ordered[math.ceil(share * len(ordered)) - 1]


async def audits_agree(sql: asyncpg.Connection, shown: PageState, moments: Sequence[float]) -> None:
    rows = await sql.fetch(AUDITS)
    assert len(rows) >= 5
    assert len(shown.audits) == len(rows)
    for audit, row in zip(shown.audits, rows, strict=True):
        assert audit.run_id == row["id"]
        for name in (
            "verdict", "requested_by", "project_id", "repair", "compared", "missing", "mismatched",
            "orphaned", "pending", "repaired", "error",
        ):  # fmt: skip
            assert getattr(audit, name) == row[name], name
        assert_moment(audit.at, row["at"], moments)
        assert audit.duration_seconds == pytest.approx(row["seconds"], abs=0.01)
        found = await sql.fetchval("SELECT count(*) FROM audit_findings WHERE audit_run_id = $1", row["id"])
        assert audit.unlisted == sum(row[kind] for kind in ("missing", "mismatched", "orphaned")) - found
    whole = [audit.at for audit in shown.audits if audit.project_id is None]
    assert shown.verdict.verified_at == whole[-1]


async def findings_agree(sql: asyncpg.Connection, shown: PageState, moments: Sequence[float]) -> None:
    rows = {(row["audit_run_id"], row["collection_id"]): row for row in await sql.fetch(FINDINGS)}
    assert shown.findings_total == len(shown.findings) == len(rows) == 7
    for finding in shown.findings:
        row = rows[finding.run_id, finding.collection_id]
        for name in ("project_id", "kind", "outcome"):
            assert getattr(finding, name) == row[name], name
        assert finding.legacy == cut(row["legacy"])
        assert finding.before == cut(row["target"])
        assert_moment(finding.at, row["at"], moments)
        if finding.outcome is not None:
            assert (finding.after is None) == (row["now_there"] is None)
            there = json.loads(row["now_there"] or "{}")
            assert (finding.after or {}).get("research_context") == there.get("research_context")
    assert {finding.kind for finding in shown.findings} == {"missing", "mismatched", "orphaned"}
    assert [finding.outcome for finding in shown.findings] == ["repaired"] * 3 + [None] * 4


def cut(side: str | None) -> dict[str, Any] | None:
    """Return a side as the log shows it: its texts are cut at 200 characters."""
    if side is None:
        return None
    values = {name: value if value is None else str(value) for name, value in json.loads(side).items()}
    return {name: value if value is None else value[:200] for name, value in values.items()}


async def letters_agree(sql: asyncpg.Connection, shown: PageState, moments: Sequence[float]) -> None:
    rows = {row["id"]: row for row in await sql.fetch(LETTERS)}
    assert shown.dead_letters_total == len(shown.dead_letters) == len(rows) == 4
    for letter in shown.dead_letters:
        row = rows[letter.event_id]
        assert letter.collection_id == row["aggregate_id"]
        for name in ("project_id", "event_type", "source", "sqlstate", "error", "state"):
            assert getattr(letter, name) == row[name], name
        assert_moment(letter.at, row["at"], moments)
        if row["closed_at"] is None:
            assert letter.closed_at is None
        else:
            assert_moment(letter.closed_at, row["closed_at"], moments)
    assert sorted(row["state"] for row in rows.values()) == ["dead", "discarded", "replayed", "superseded"]
    assert shown.dead_letters_open == 1


async def backfills_agree(sql: asyncpg.Connection, shown: PageState, moments: Sequence[float]) -> None:
    rows = await sql.fetch(BACKFILLS)
    assert len(shown.backfills) == len(rows) == 1
    for run, row in zip(shown.backfills, rows, strict=True):
        assert run.run_id == row["id"]
        for name in ("status", "processed", "planned", "enqueued", "skipped", "driver", "project_id"):
            assert getattr(run, name) == row[name], name
        assert_moment(run.started_at, row["started_at"], moments)
        assert run.duration_seconds == pytest.approx(row["finished_at"] - row["started_at"], abs=0.01)
        assert row["processed"] > 300
