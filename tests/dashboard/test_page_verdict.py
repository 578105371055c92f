"""What the page says of a log, line by line, and since when; the rules themselves are in tests/status."""

import json

import pytest

from shared.verdict import commands, rules
from tests.dashboard.loglines import NOW, fields, folded, line
from tests.status.test_answer import CASES
from worker.dashboard.evidence import Evidence
from worker.dashboard.page_state import PageState
from worker.dashboard.page_verdict import TONES, page_verdict
from worker.dashboard.rendering import to_json

HOLDER = {
    "pid": 23392, "application": "psql", "role": "ann", "held_seconds": 26.0,
    "waiting": "collection-sync worker", "waited_seconds": 1.5,
}  # fmt: skip
COUNTS = [
    name for name in fields("worker_heartbeat") if name.startswith(("pending", "oldest", "dead", "clock"))
]
NOTHING = dict.fromkeys(COUNTS)


def beat(ago: float, **more: object) -> str:
    return line("worker_heartbeat", NOW - ago, **more)


def beats(first: float, last: float = 1.0) -> list[str]:
    """Return heartbeats from so many seconds ago on, each five seconds."""
    count = int((first - last) // 5) + 1
    return [beat(first - 5 * number) for number in range(count)]


def silent(ago: float, database: str, **more: object) -> str:
    return beat(ago, database=database, level="warning", **(NOTHING | more))


def audit(ago: float, verdict: str | None = "in_sync", **more: object) -> str:
    status = "failed" if verdict is None else "finished"
    is_bad = verdict in {None, "drift", "incomplete"}
    level = "error" if is_bad else "info"
    return line(
        "audit_finished", NOW - ago, verdict=verdict, status=status, level=level,
        **({"run_id": 1000 - int(ago), "compared": 50} | more),
    )  # fmt: skip


def run(event: str, ago: float, **more: object) -> str:
    return line(f"backfill_{event}", NOW - ago, **({"run_id": 3, "planned": 100} | more))


def backfilled(ago: float) -> list[str]:
    return [run("started", ago + 1), run("finished", ago, processed=100)]


def rolled_back(ago: float, **more: object) -> list[str]:
    return [
        line("rollback_started", NOW - ago - 1),
        line("rollback_finished", NOW - ago, **({"removed": 3} | more)),
    ]


def died(ago: float, event_id: int = 12, collection_id: str = "c1", **more: object) -> str:
    return line(
        "event_settled", NOW - ago, event_id=event_id, collection_id=collection_id, outcome="dead",
        level="error", sqlstate="22007", **more,
    )  # fmt: skip


def found(run_id: int, collection_id: str) -> str:
    return line("audit_finding", NOW - 31, run_id=run_id, collection_id=collection_id, level="warning")


def shown(*lines: str, now: float = NOW, live: bool = True) -> PageState:
    return folded(*lines, now=now).page_state(live=live)


CANCELLED = {
    "id": 3, "status": "cancelled", "in_worker": False, "project_id": None, "planned": 100, "processed": 43,
    "throttled_by": None, "has_let_go": True, "started_at": NOW - 50, "heard_at": NOW - 20,
    "finished_at": NOW - 10,
}  # fmt: skip
WELL = [*backfilled(600), *beats(500)]
LOGS = {
    "nothing at all": ([], "blind", "Blind", None),
    "no heartbeat": ([audit(30)], "blind", "Blind", None),
    "a worker that fell silent": ([*WELL[:2], *beats(60, 20), audit(30)], "blind", "Blind", 5.0),
    "a worker that stopped": (
        [*WELL, audit(30), line("worker_stopped", NOW - 0.5, worker="host:1")], "stopped", None, 0.5,
    ),
    "a worker that stopped long ago": (
        [*WELL[:2], *beats(900, 400), line("worker_stopped", NOW - 399, worker="host:1")],
        "stopped", None, 399,
    ),
    "one stopped, and another fell silent later": (
        [*WELL[:2], line("worker_stopped", NOW - 90, worker="other:1"), *beats(60, 20)],
        "blind", "Blind", 5.0,
    ),
    "PostgreSQL is away": (
        [*WELL, audit(30), silent(0.9, "away"), silent(0.5, "away")], "database_away",
        "PostgreSQL is away", 0.9,
    ),
    "a sequence is behind": (
        [*WELL, audit(30), silent(0.5, "unfit", hint="x is behind. Run p --repair-sequences.")], "unfit",
        "Unfit", None,
    ),
    "a standby": ([*WELL, audit(30), silent(0.5, "unfit", hint="A standby.")], "unfit", "Unfit", None),
    "nothing may be written": (
        [*WELL, audit(30), silent(0.5, "unfit", hint="read-only", read_only=True)], "read_only", "Read-only",
        None,
    ),
    "nothing may be written by new sessions": (
        [*WELL, audit(30), beat(0.5, read_only=True)], "read_only", "Read-only", None,
    ),
    "all well": ([*WELL, audit(90), audit(30)], "in_sync", "In sync", 90),
    "agreement although nothing was backfilled": (
        [*beats(500), beat(0.5, backfill={}), audit(30)], "in_sync", "In sync", 30,
    ),
    "drift although an earlier run than the last brought all over": (
        [*beats(500), audit(30, "drift", missing=3),
         beat(0.5, backfilled_at=NOW - 400.0, backfill=CANCELLED | {"finished_at": NOW - 300.0})],
        "drift", "Drift: 3", 30,
    ),
    "drift": ([*WELL, audit(90), audit(30, "drift", missing=3)], "drift", "Drift: 3", 30),
    "drift, whatever the line calls it": (
        [*WELL, audit(30, "in_sync", missing=1)], "drift", "Drift: 1", 30,
    ),
    "drift before anything was brought over": (
        [*beats(500), audit(30, "drift", missing=3), beat(0.5, backfill={})], "not_backfilled",
        "Not backfilled yet", None,
    ),
    "drift in a log that begins in the middle": (
        [*beats(500), audit(90), audit(30, "drift", missing=3)], "drift", "Drift: 3", 30,
    ),
    "no line says of which projects the run was": (
        [run("finished", 60, processed=100), *beats(50), audit(30, "drift", missing=3)], "not_backfilled",
        "Not backfilled yet", None,
    ),
    "of one project alone": (
        [run("started", 70, project_id="p"), run("finished", 60), *beats(50), audit(30, "drift", missing=3)],
        "not_backfilled", "Not backfilled yet", None,
    ),
    "backfilling": (
        [*beats(60), run("started", 50), run("chunk", 1, processed=36), audit(30, "drift", missing=64)],
        "backfilling", "Backfilling 36 %", 50,
    ),
    "paused": (
        [*beats(60), run("started", 50), run("paused", 20, processed=43)], "backfill_paused",
        "Paused at 43 %", 20,
    ),
    "interrupted": (
        [*beats(60), run("started", 50, process="backfill"), run("interrupted", 20, processed=43)],
        "interrupted", "Interrupted at 43 %", 20,
    ),
    "its driver went without a word": (
        [*beats(60), run("started", 50, process="backfill"),
         run("chunk", 20, processed=43, process="backfill")],
        "interrupted", "Interrupted at 43 %", 20,
    ),
    "cancelled from where there is no log": (
        [*beats(60), run("started", 50), run("paused", 20, processed=43),
         beat(0.5, backfill=CANCELLED)],
        "not_backfilled", "Not backfilled yet", None,
    ),
    "settling": (
        [*WELL, audit(30), beat(0.5, pending_repair=7, oldest_repair_seconds=1.0)],
        "settling", "Settling", None,
    ),
    "rolled back": (
        [*WELL[:2], *beats(500, 60), audit(90), line("worker_stopped", NOW - 55, worker="host:1"),
         *rolled_back(50)],
        "rolled_back", None, 50,
    ),
    "rolled back, and a worker was started": (
        [*WELL[:2], *beats(500, 60), audit(90), *rolled_back(50), *beats(40),
         audit(30, "drift", missing=3)],
        "rolled_back", None, 50,
    ),
    "a rollback that was looked at only": (
        [*WELL, audit(90), audit(30), *rolled_back(50, dry_run=True)[1:]], "in_sync", "In sync", 90,
    ),
    "a rollback that has not ended": (
        [*WELL[:2], audit(90), line("rollback_started", NOW - 50), line("worker_stopped", NOW - 55)],
        "rollback_interrupted", "Rollback unfinished", 50,
    ),
    "rolled back where there is no log": (
        [*WELL, audit(90), audit(30),
         beat(0.5, backfill=CANCELLED, rollback={"status": "finished", "ended_at": NOW - 20})],
        "rolled_back", None, 20,
    ),
    "forward again": (
        [*WELL[:2], *beats(500, 60), audit(90), *rolled_back(50), *beats(40), run("started", 35, run_id=4),
         run("finished", 34, run_id=4), audit(20)],
        "in_sync", "In sync", 20,
    ),
    "forward again, and not audited yet": (
        [*WELL[:2], *beats(500, 60), audit(90), *rolled_back(50), *beats(40), run("started", 35, run_id=4),
         run("finished", 34, run_id=4)],
        "not_audited", "Not audited", None,
    ),
    "held": (
        [*WELL, audit(30), beat(0.5, pending_live=1, oldest_live_seconds=26.0, held_by=[HOLDER])], "stuck",
        "Stuck: held by pid 23392 (psql) for 26 s", 26.5,
    ),
    "a table is locked": (
        [*WELL, audit(30), beat(0.5, held_by=[HOLDER], **NOTHING)], "stuck",
        "Stuck: held by pid 23392 (psql) for 26 s", 26.5,
    ),
    "holders that are no holders": (
        [*WELL, audit(30), beat(0.5, pending_live=1, oldest_live_seconds=26.0, held_by=[1, {"pid": "x"}])],
        "in_sync", "In sync", 30,
    ),
    "late": (
        [*WELL, audit(30), beat(0.5, pending_live=1, oldest_live_seconds=61.0)], "late", "Late", None,
    ),
    "an audit that failed": ([*WELL, audit(90), audit(30, None)], "incomplete", "Not proved", 30),
    "audits that failed": (
        [*WELL, audit(90), audit(40, None), audit(30, None)], "incomplete", "Not proved", 40,
    ),
    "repaired": (
        [*WELL, audit(90), audit(30, "repaired", missing=2, repaired=2)], "repaired", "Repaired", 30,
    ),
    "clean after a repair": (
        [*WELL, audit(90), audit(60, "repaired", missing=2, repaired=2), audit(30)], "in_sync", "In sync", 30,
    ),
    "outdated": ([*WELL, audit(301)], "outdated", "Audit outdated", None),
    "never audited": (WELL, "not_audited", "Not audited", None),
    "a letter": (
        [*WELL, audit(30), died(20), beat(0.5, dead_letters=1)], "dead_letters",
        "In sync but for one dead letter", 20,
    ),
    "a letter explains the drift": (
        [*WELL, audit(30, "drift", mismatched=1), found(970, "c1"), died(20), beat(0.5, dead_letters=1)],
        "dead_letters", "In sync but for one dead letter", 20,
    ),
    "reads that fell back by themselves": (
        [*WELL, audit(30), beat(0.5, phase="shadow_reads", epoch=5, phase_since=NOW - 20, fell_back=True)],
        "fell_back", None, 20,
    ),
    "reads that somebody turned back": (
        [*WELL, audit(30), beat(0.5, phase="shadow_reads", epoch=5, phase_since=NOW - 20, fell_back=False)],
        "in_sync", None, 30,
    ),
    "moved reads that differ": (
        [*WELL, audit(30), beat(0.5, phase="reads_moved", epoch=4, phase_since=NOW - 20, lists_mismatched=2)],
        "reads_differ", "Reads differ: 2 lists differ", None,
    ),
    "letters of which no line tells": (
        [*WELL, audit(30), beat(0.5, dead_letters=2)], "dead_letters", "In sync but for 2 dead letters", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "state", "title", "ago"), LOGS.values(), ids=LOGS)
def test_of_a_log_the_page_says(lines: list[str], state: str, title: str | None, ago: float | None) -> None:
    verdict = shown(*lines).verdict
    assert verdict.state == state, verdict.detail
    assert title is None or verdict.title == title
    assert verdict.since == (None if ago is None else pytest.approx(NOW - ago))
    assert (verdict.tone == "good") == (state == "in_sync")
    assert (state == "in_sync") == (verdict.next_steps == [commands.PHASE])


@pytest.mark.parametrize("name", CASES)
def test_of_the_same_facts_page_and_status_say_the_same(name: str) -> None:
    facts = CASES[name][0]
    if not facts.alive:  # only the last heartbeat tells a log whether it is blind
        return
    said = rules.answer_from(facts)
    evidence = Evidence(facts, [], facts.server.now - 1, None, facts.server.now - 60)
    verdict = page_verdict(evidence)
    assert (verdict.state, verdict.detail, verdict.next_steps) == (
        said.word,
        said.sentence,
        list(said.next_steps),
    )
    assert verdict.tone == TONES.get(said.word, "bad")
    assert verdict.detail.startswith(verdict.title) or said.short


def test_a_blind_spell_and_a_rollback_end_what_was_proved_before() -> None:
    before = [*WELL[:2], *beats(500, 100), audit(300), audit(200)]
    assert shown(*before, *beats(60), audit(30)).verdict.since == NOW - 30
    assert shown(*before, *beats(60)).verdict.since == NOW - 60
    assert shown(*before, *beats(95), audit(30)).verdict.since == NOW - 300  # five seconds are no gap


def test_the_age_of_a_verdict_is_the_page_s_to_tell() -> None:
    """Its sentence stays the same while nothing but time goes by: it is read aloud when it changes."""
    lines = [*WELL, audit(30)]
    for more in ([], [line("worker_stopped", NOW - 0.5, worker="host:1")]):
        details = {shown(*lines, *more, now=NOW + seconds).verdict.detail for seconds in range(10)}
        assert len(details) == 1


def test_one_may_go_on_when_all_is_well_whatever_redis_does() -> None:
    quiet = shown(*WELL, audit(30))
    assert (quiet.go_on.may, quiet.go_on.reasons) == (True, [])
    away = shown(*WELL, audit(30), beat(0.5, redis="away"))
    assert (away.go_on.may, away.verdict.state) == (True, "in_sync")
    assert "Redis is away" in away.go_on.reasons[0]
    drifted = shown(*WELL, audit(30, "drift", missing=1))
    assert (drifted.go_on.may, drifted.go_on.reasons) == (False, [drifted.verdict.detail])
    assert drifted.verdict.next_steps == [commands.REPAIR, commands.AUDIT]


def test_a_failed_audit_is_a_gap_and_no_zero() -> None:
    failed, proved = shown(*WELL, audit(90, None), audit(30)).audits
    assert (failed.compared, failed.missing, failed.pending) == (None, None, None)
    assert proved.compared == 50


def test_a_letter_of_a_replay_is_told_from_a_first_one() -> None:
    replayed = line("dead_letters_replayed", NOW - 15, letters=1, event_ids=[12])
    again = died(10, 13, source="repair")
    said = shown(*WELL, audit(30), died(20), replayed, again, beat(0.5, dead_letters=1)).verdict
    assert "13 (22007), a replay that died again" in said.detail


@pytest.mark.parametrize("moment", [2**62, -(2**62), 1e300, "now", True, None])
def test_a_heartbeat_that_holds_nonsense_ends_nothing(moment: object) -> None:
    run_of_nonsense = CANCELLED | {"started_at": moment, "finished_at": moment, "status": "running"}
    parsed = json.loads(beat(0.5))
    parsed |= {"backfill": run_of_nonsense, "rollback": {"ended_at": moment}, "held_by": [HOLDER, {}, moment]}
    parsed |= {"backfilled_at": moment if isinstance(moment, int) else 0.0}
    endless = run("chunk", 1, processed=1, planned=2**62)
    page_state = shown(*beats(60), run("started", 50), endless, json.dumps(parsed), audit(30))
    assert page_state.verdict.detail
    assert to_json(page_state)
