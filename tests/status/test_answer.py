"""Which facts give which word, which commands, and which of two that apply."""

from dataclasses import replace
from typing import Any

import pytest

from shared.phase.phases import Phase
from shared.revision import REVISION
from shared.verdict import commands
from shared.verdict.facts import (
    LOCKED,
    Audit,
    Backfill,
    Cutover,
    Facts,
    History,
    Letter,
    LockHolder,
    Server,
    Shadow,
    Waiting,
    Worker,
)
from shared.verdict.rules import answer_from

NOW = 1_000_000.0
NOTHING = {name: Waiting(0, None) for name in ("live", "repair", "backfill")}
ALIVE = Worker("host:1:ab", NOW - 0.5, None)
PROOF = Audit(
    id=1, status="finished", verdict="in_sync", requested_by="schedule", project_id=None, repair=False,
    compared=33, found=0, pending=0, repaired=0, error=None, started_at=NOW - 31, ended_at=NOW - 30,
)  # fmt: skip
RUN = Backfill(
    id=3, status="finished", in_worker=False, project_id=None, planned=100, processed=100, throttled_by=None,
    has_let_go=True, started_at=NOW - 100, heard_at=NOW - 60, finished_at=NOW - 60,
)  # fmt: skip
DONE = History(backfill=RUN, backfilled_at=NOW - 60, whole=PROOF, proof=PROOF)
WELL = Facts(
    server=Server(NOW, REVISION), sequence_faults=[], workers=[ALIVE], lanes=NOTHING, later_versions=0,
    holders=[], history=DONE, letters=[],
)  # fmt: skip
BACK = replace(PROOF, requested_by="rollback", verdict="incomplete", started_at=NOW - 5, ended_at=NOW - 5)
PSQL = LockHolder(23392, "psql", "ann", 26.0, "collection-sync worker", 1.5)
LETTER = Letter(12, "c1", "22007", is_replay=False, has_home=True)
RUNNING = replace(RUN, status="running", processed=36, finished_at=None, heard_at=NOW, has_let_go=False)
LET_GO = replace(RUNNING, has_let_go=True)
SILENT = replace(RUNNING, heard_at=NOW - 4)
DRIFT = replace(PROOF, verdict="drift", found=2)

COMPARING = Cutover(Phase.SHADOW_READS, 3, NOW - 60, "ann", falls_back=True, kind="advance")
MOVED = replace(COMPARING, phase=Phase.READS_MOVED, epoch=4)
FELL = replace(COMPARING, epoch=5, kind="fall_back", reason="c1 of p1 is missing.")
MISMATCH = Shadow(matched=7, mismatched=2, last_at=NOW - 1)


def with_run(run: Backfill, **more: Any) -> Facts:  # noqa: ANN401 - fields of a history
    return replace(WELL, history=replace(DONE, backfill=run, backfilled_at=None, **more))


def with_audit(audit: Audit, **more: Any) -> Facts:  # noqa: ANN401 - fields of a history
    proof = audit if audit.proves else DONE.proof
    return replace(WELL, history=replace(DONE, whole=audit, proof=proof, **more))


def waiting(facts: Facts, **oldest: float) -> Facts:
    return replace(facts, lanes=NOTHING | {name: Waiting(7, seconds) for name, seconds in oldest.items()})


CASES = {
    "all well": (WELL, "in_sync", "all 33 pairs agree, audited at", []),
    "pairs on their way": (
        with_audit(replace(PROOF, verdict="pending", pending=1)), "in_sync", "33 pairs 1 was on the way", [],
    ),
    "bare": (replace(WELL, server=Server(NOW)), "not_migrated", "never migrated", [commands.UPGRADE]),
    "the release before's": (
        replace(WELL, server=Server(NOW, "0001")), "not_migrated", "at revision 0001", [commands.UPGRADE],
    ),
    "a later release's": (replace(WELL, server=Server(NOW, "9999")), "in_sync", "", []),
    "sequences": (
        replace(WELL, sequence_faults=["x is behind"]), "unfit", "x is behind", [commands.REPAIR_SEQUENCES],
    ),
    "read-only": (
        replace(WELL, server=replace(WELL.server, is_read_only=True)), "read_only", "", [commands.PREFLIGHT,
        commands.WATCH],
    ),
    "a standby is read-only by its nature": (
        replace(WELL, server=replace(WELL.server, is_read_only=True, is_standby=True)), "in_sync", "", [],
    ),
    "held": (
        waiting(replace(WELL, holders=[PSQL]), live=1), "stuck", "held by pid 23392 (psql) for 26 s",
        [commands.WATCH],
    ),
    "held, but nobody may see since when": (
        replace(WELL, holders=[replace(PSQL, held_seconds=None, waited_seconds=3.0)]), "stuck",
        "for at least 3 s", [commands.WATCH],
    ),
    "held during a backfill": (
        replace(with_run(RUNNING), holders=[PSQL]), "stuck", "psql", [commands.WATCH],
    ),
    "held for a moment": (replace(WELL, holders=[replace(PSQL, held_seconds=1, waited_seconds=1)]), "in_sync",
        "", []),
    "a lock that nobody waits for": (
        replace(WELL, holders=[replace(PSQL, waiting=None, waited_seconds=None)]), "in_sync", "", [],
    ),
    "a request behind the monolith's row": (
        replace(WELL, holders=[replace(PSQL, waiting="collection-sync api")]), "in_sync", "", [],
    ),
    "a table that is locked": (
        replace(WELL, history=None, unknown={"history": LOCKED}, holders=[replace(PSQL, waiting=None)]),
        "stuck", "held by pid 23392 (psql)", [commands.WATCH],
    ),
    "not for this login to see": (
        replace(WELL, history=None, unknown={"history": "this login may not see it"}), "unknown",
        "history: this login may not see it", [commands.WATCH],
    ),
    "backfilling": (with_run(RUNNING), "backfilling", "Backfilling 36 %, done about", [commands.WATCH]),
    "backfilling, throttled": (
        with_run(replace(RUNNING, throttled_by="live events are late")), "backfilling",
        "36 %, waiting: live events are late", [commands.WATCH],
    ),
    "backfilling while an audit finds what is missing": (
        with_run(RUNNING, whole=DRIFT, proof=DRIFT), "backfilling", "", [commands.WATCH],
    ),
    "backfilling, nobody applies": (
        replace(with_run(RUNNING), workers=[]), "stopped", "no worker has run", [commands.WORKER],
    ),
    "left to workers, none is there": (
        replace(with_run(replace(SILENT, in_worker=True)), workers=[]), "stopped", "", [commands.WORKER],
    ),
    "paused": (
        with_run(replace(SILENT, status="paused", processed=43)), "backfill_paused", "paused at 43 %",
        [commands.RESUME],
    ),
    "paused, and no worker": (
        replace(with_run(replace(SILENT, status="paused")), workers=[]), "backfill_paused", "",
        [commands.WORKER, commands.RESUME],
    ),
    "its driver let go": (with_run(LET_GO), "interrupted", "36 of 100 rows are done", [commands.RESUME]),
    "its driver is silent": (with_run(SILENT), "interrupted", "", [commands.RESUME]),
    "whether it let go is not for this login": (
        with_run(replace(RUNNING, has_let_go=None)), "backfilling", "", [commands.WATCH],
    ),
    "never backfilled": (
        replace(WELL, history=History()), "not_backfilled", "what was there before", [commands.BACKFILL],
    ),
    "never backfilled, and no worker": (
        replace(WELL, history=History(), workers=[]), "not_backfilled", "", [commands.WORKER,
        commands.BACKFILL],
    ),
    "never backfilled, and an audit says what is missing": (
        replace(WELL, history=History(whole=DRIFT, proof=DRIFT)), "not_backfilled", "", [commands.BACKFILL],
    ),
    "cancelled": (
        with_run(replace(RUN, status="cancelled"), whole=None, proof=None), "not_backfilled",
        "The last run, 3, was cancelled", [commands.BACKFILL],
    ),
    "of one project alone": (
        with_run(replace(RUN, project_id="p1"), whole=None, proof=None), "not_backfilled",
        "was of one project alone", [commands.BACKFILL],
    ),
    "nothing to bring over": (replace(WELL, history=History(whole=PROOF, proof=PROOF)), "in_sync", "", []),
    "rolled back": (
        replace(with_run(RUN, rollback=BACK), workers=[]), "rolled_back", "Rolled back at",
        [commands.WORKER, commands.BACKFILL],
    ),
    "rolled back, and an audit says what is missing": (
        with_run(RUN, rollback=BACK, whole=replace(DRIFT, started_at=NOW - 3), proof=replace(DRIFT,
        started_at=NOW - 3)), "rolled_back", "", [commands.BACKFILL],
    ),
    "a rollback that was interrupted": (
        replace(with_run(RUN, rollback=replace(BACK, status="failed")), workers=[]), "rollback_interrupted",
        "has not ended", [commands.ROLL_BACK],
    ),
    "a rollback that was interrupted, and a worker that was started": (
        with_run(RUN, rollback=replace(BACK, status="failed")), "rollback_interrupted", "or go forward",
        [commands.BACKFILL],
    ),
    "forward again": (
        replace(WELL, history=replace(DONE, rollback=replace(BACK, started_at=NOW - 99, ended_at=NOW - 99))),
        "in_sync", "", [],
    ),
    "a proof from before the rollback": (
        replace(WELL, history=replace(DONE, rollback=BACK)), "not_audited", "older than what was done since",
        [commands.AUDIT],
    ),
    "a proof that began before the backfill ended": (
        replace(WELL, history=replace(DONE, backfill=replace(RUN, finished_at=NOW - 30.5))), "not_audited",
        "", [commands.AUDIT],
    ),
    "a proof from before a repair of one project": (
        replace(WELL, history=replace(DONE, mended_at=NOW - 1)), "not_audited", "", [commands.AUDIT],
    ),
    "stopped in good order": (
        replace(WELL, workers=[replace(ALIVE, ended_at=NOW - 14)]), "stopped", "ended in good order at",
        [commands.WORKER],
    ),
    "killed": (
        replace(WELL, workers=[replace(ALIVE, heard_at=NOW - 14)]), "stopped",
        "fell silent without a word at", [commands.WORKER],
    ),
    "one of two killed": (
        replace(WELL, workers=[replace(ALIVE, heard_at=NOW - 14), ALIVE]), "in_sync", "", [],
    ),
    "a later version": (
        replace(WELL, later_versions=2), "later_version", "2 events of a later version", [commands.WATCH],
    ),
    "being applied": (waiting(WELL, backfill=4), "settling", "7 of the backfill wait", [commands.WATCH]),
    "not being applied": (
        waiting(WELL, repair=61), "settling", "7 of repairs", [commands.PREFLIGHT, commands.WATCH],
    ),
    "never audited": (
        replace(WELL, history=replace(DONE, whole=None, proof=None)), "not_audited", "", [commands.AUDIT],
    ),
    "being audited": (
        replace(WELL, history=replace(DONE, whole=None, proof=None, is_auditing=True)), "not_audited", "",
        [commands.WATCH],
    ),
    "drift": (
        with_audit(DRIFT, findings=frozenset({"c1", "c2"})), "drift", "2 pairs differ",
        [commands.REPAIR, commands.AUDIT],
    ),
    "drift beside a dead letter": (
        replace(with_audit(DRIFT, findings=frozenset({"c1", "c2"})), letters=[LETTER]), "drift", "",
        [commands.REPAIR, commands.AUDIT],
    ),
    "drift that a dead letter explains": (
        replace(with_audit(replace(DRIFT, found=1), findings=frozenset({"c1"})), letters=[LETTER]),
        "dead_letters", "In sync but for one dead letter", [f"{commands.LETTERS} show 12",
        f"{commands.LETTERS} replay --wait 12", commands.AUDIT],
    ),
    "drift of which not all is listed": (
        replace(with_audit(DRIFT, findings=frozenset({"c1"})), letters=[LETTER]), "drift", "",
        [commands.REPAIR, commands.AUDIT],
    ),
    "drift that its repair did not mend": (
        with_audit(replace(DRIFT, repaired=1), mended_at=NOW - 30), "drift", "1 pair differs",
        [commands.REPAIR, commands.AUDIT],
    ),
    "drift of one project": (
        replace(WELL, history=replace(DONE, drifted=[replace(DRIFT, project_id="p1")])), "drift",
        "in 1 project audited alone", [commands.REPAIR, commands.AUDIT],
    ),
    "an audit that could not see": (
        with_audit(replace(PROOF, verdict="incomplete", error="blind")), "incomplete", "blind",
        [commands.AUDIT],
    ),
    "an audit that failed": (
        with_audit(replace(PROOF, status="failed", verdict=None)), "incomplete", "", [commands.AUDIT],
    ),
    "repaired": (
        with_audit(replace(PROOF, verdict="repaired", repaired=2), mended_at=NOW - 30), "repaired",
        "2 pairs were repaired", [commands.AUDIT],
    ),
    "outdated": (
        with_audit(replace(PROOF, started_at=NOW - 301, ended_at=NOW - 301),
        backfill=replace(RUN, finished_at=NOW - 400)), "outdated", "the last of all pairs ended at",
        [commands.AUDIT],
    ),
    "an audit that takes long is outdated later": (
        with_audit(replace(PROOF, started_at=NOW - 400, ended_at=NOW - 301),
        backfill=replace(RUN, finished_at=NOW - 500)), "in_sync", "", [],
    ),
    "a dead letter": (
        replace(WELL, letters=[LETTER]), "dead_letters", "open is 12 (22007)",
        [f"{commands.LETTERS} show 12", f"{commands.LETTERS} replay --wait 12", commands.AUDIT],
    ),
    "a replay that died again": (
        replace(WELL, letters=[replace(LETTER, is_replay=True)]), "dead_letters", "a replay that died again",
        [f"{commands.LETTERS} show 12", f"{commands.LETTERS} replay --wait 12", commands.AUDIT],
    ),
    "a dead letter of what is gone": (
        replace(WELL, letters=[replace(LETTER, has_home=False)]), "dead_letters", "its collection is gone",
        [f"{commands.LETTERS} discard 12", commands.AUDIT],
    ),
    "letters of which no more is known": (
        replace(WELL, more_letters=2), "dead_letters", "but for 2 dead letters", [f"{commands.LETTERS} list",
        commands.AUDIT],
    ),
    "silent for longer, but by a log": (
        replace(WELL, workers=[replace(ALIVE, heard_at=NOW - 14)], late_by_seconds=10.0), "in_sync", "", [],
    ),
    "late": (waiting(WELL, live=61), "late", "for 61 s", [commands.PREFLIGHT, commands.WATCH]),
    "not late yet": (waiting(WELL, live=59), "in_sync", "", []),
    "comparing lists": (replace(WELL, cutover=COMPARING), "in_sync", "", []),
    "a mismatch before reads are moved": (
        replace(WELL, cutover=replace(COMPARING, shadow=MISMATCH)), "in_sync", "", [],
    ),
    "reads moved": (replace(WELL, cutover=MOVED), "in_sync", "", []),
    "moved reads that differ": (
        replace(WELL, cutover=replace(MOVED, shadow=MISMATCH)), "reads_differ",
        "2 lists differ between both tables", [commands.REPAIR, commands.AUDIT, commands.BACK],
    ),
    "reads that fell back": (
        replace(WELL, cutover=FELL), "fell_back", "Reads fell back to collections at ",
        [commands.REPAIR, commands.AUDIT, commands.PHASE],
    ),
    "reads that fell back, and an audit knows why": (
        replace(with_audit(DRIFT), cutover=FELL), "drift", "", [commands.REPAIR, commands.AUDIT],
    ),
    "reads that fell back, and were given up": (
        replace(WELL, cutover=replace(FELL, kind="back")), "in_sync", "", [],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "word", "said", "steps"), CASES.values(), ids=CASES)
def test_the_verdict_is(facts: Facts, word: str, said: str, steps: list[str]) -> None:
    answer = answer_from(facts)
    # Where all is well the phase says what is next.
    assert (answer.word, list(answer.next_steps)) == (word, steps or [commands.PHASE]), answer.sentence
    assert said in answer.sentence
    assert answer.sentence.endswith(".")
    assert answer.is_well == (word == "in_sync") == (not steps)
