"""Each gate: met, not met, not known, and older than it may be; and what is to be typed where it is not."""

from dataclasses import replace

import pytest
from pydantic import SecretStr

from shared.phase.gates import GATES, NOT_KNOWN, Gate, Limits, gates_of
from shared.phase.limits import limits_of
from shared.phase.phases import Phase
from shared.phase.steps import is_open, next_steps
from shared.settings import TurnSettings
from shared.verdict import commands
from shared.verdict.facts import Captured, Cutover, Facts, History, Letter, PastTheOutbox, Server, Shadow
from tests.status.test_answer import ALIVE, DONE, DRIFT, NOW, PROOF, RUN, RUNNING, WELL, waiting

DAY = 86_400.0
APPENDS = Captured("append", is_whole=True, installed_at=NOW - 1)
COUNTS = Captured("count", is_whole=True, installed_at=NOW - 2 * DAY)
MATCHED = Shadow(matched=1_000, last_at=NOW - 3)
HELD = Cutover(Phase.VERIFIED, 2, NOW - DAY, "ann", falls_back=True, shadow=MATCHED)
MET = replace(WELL, captured=APPENDS, cutover=HELD)
BARE = Facts(Server(NOW))


def captured(captured: Captured | None) -> Facts:
    return replace(MET, captured=captured)


def history(**changes: object) -> Facts:
    return replace(MET, history=replace(DONE, **changes))  # type: ignore[arg-type]  # fields of a history


def compared(shadow: Shadow) -> Facts:
    return replace(MET, cutover=replace(HELD, shadow=shadow))


def written(ago: float) -> PastTheOutbox:
    return PastTheOutbox("monolith", "cron", "update", 3, NOW - ago)


UNKNOWN = {
    "workers": [commands.WORKER],
    "backlog": [commands.PREFLIGHT],
    "writers": [commands.CAPTURE_STATUS],
    "backfill": [commands.PREFLIGHT],
    "letters": [commands.PREFLIGHT],
    "audit": [commands.AUDIT],
    "held": [commands.PREFLIGHT],
    "shadow": [commands.PREFLIGHT],
}
# By the gate: facts by which it is not met, what it says it saw, and what to type.
UNMET: dict[str, tuple[str, Facts, str, list[str]]] = {
    "never migrated": ("schema", BARE, "none", [commands.UPGRADE]),
    "an older schema": ("schema", replace(MET, server=Server(NOW, "0001")), "0001", [commands.UPGRADE]),
    "no worker": ("workers", replace(MET, workers=[]), "0 alive", [commands.WORKER]),
    "a worker that went": (
        "workers", replace(MET, workers=[replace(ALIVE, heard_at=NOW - 6)]), "0 alive", [commands.WORKER],
    ),
    "late writes": ("backlog", waiting(MET, live=60), "the oldest for 60 s", [commands.WATCH]),
    "later versions": (
        "backlog", replace(MET, later_versions=2), "2 events of later versions", [commands.WATCH],
    ),
    "no capture": (
        "writers", captured(Captured(None, is_whole=True)), "no capture is installed", [commands.CAPTURE],
    ),
    "a broken capture": (
        "writers", captured(replace(APPENDS, is_whole=False)), "gone or disabled", [commands.CAPTURE],
    ),
    "a capture that counts since lately": (
        "writers", captured(replace(COUNTS, installed_at=NOW - DAY + 1)), "none for 24 hours",
        [commands.CAPTURE_STATUS, commands.CAPTURE],
    ),
    "a writer who was seen": (
        "writers", captured(replace(COUNTS, writers=[written(10)])), "none for 10 s",
        [commands.CAPTURE_STATUS, commands.CAPTURE],
    ),
    "a writer who was seen, and is not listed any more": (
        "writers", captured(replace(COUNTS, last_at=NOW - 3600)), "none for 60 minutes",
        [commands.CAPTURE_STATUS, commands.CAPTURE],
    ),
    "no backfill": ("backfill", history(backfill=None, backfilled_at=None), "none", [commands.BACKFILL]),
    "a backfill that goes on": (
        "backfill", history(backfill=RUNNING), "run 3 is running", [commands.RESUME],
    ),
    "a backfill that was taken back": (
        "backfill", history(backfill=replace(RUN, status="cancelled"), backfilled_at=None), "none",
        [commands.BACKFILL],
    ),
    "a letter": (
        "letters", replace(MET, letters=[Letter(12, "c1", None, is_replay=False)]), "1",
        [f"{commands.LETTERS} list"],
    ),
    "letters of which no more is known": (
        "letters", replace(MET, more_letters=2), "2", [f"{commands.LETTERS} list"],
    ),
    "no audit": ("audit", history(whole=None, proof=None), "not proved", [commands.AUDIT]),
    "an audit from before the backfill ended": (
        "audit", history(backfill=replace(RUN, finished_at=NOW - 1)), "not proved", [commands.AUDIT],
    ),
    "an audit that is too old": (
        "audit", history(backfill=None, proof=replace(PROOF, started_at=NOW - 302, ended_at=NOW - 301)),
        "in sync", [commands.AUDIT],
    ),
    "drift": ("audit", history(proof=DRIFT), "drift, 33 compared", [commands.REPAIR, commands.AUDIT]),
    "drift in one project": (
        "audit", history(drifted=[replace(DRIFT, project_id="p1")]), "drift in 1 project",
        [commands.REPAIR, commands.AUDIT],
    ),
    "a phase that is young": (
        "held", replace(MET, cutover=replace(HELD, since=NOW - DAY + 1)), "24 hours", [commands.PHASE],
    ),
    "a phase in which an audit found drift": (
        "held", replace(MET, cutover=replace(HELD, drift_at=NOW - 7)), "7 s", [commands.PHASE],
    ),
    "too few lists": ("shadow", compared(replace(MATCHED, matched=999)), "999 lists", [commands.PHASE]),
    "none at all": ("shadow", compared(Shadow()), "0 lists, 0 mismatches", [commands.PHASE]),
    "one mismatch": (
        "shadow", compared(replace(MATCHED, mismatched=1)), "1,001 lists, 1 mismatch",
        [commands.REPAIR, commands.AUDIT, commands.BACK],
    ),
    "lists compared long ago": (
        "shadow", compared(replace(MATCHED, last_at=NOW - DAY - 1)), "1,000 lists", [commands.PHASE],
    ),
}  # fmt: skip
STILL_MET = {
    "a capture that refuses": ("writers", captured(replace(APPENDS, mode="refuse"))),
    "a capture that has counted nobody for a day": ("writers", captured(COUNTS)),
    "a writer who was seen a day ago": ("writers", captured(replace(COUNTS, writers=[written(DAY)]))),
    "a wait that is not too long": ("backlog", waiting(MET, live=59, backfill=999)),
    "pairs on their way": ("audit", history(proof=replace(PROOF, verdict="pending", pending=2))),
    "an audit that is as old as it may be": (
        "audit", history(backfill=None, proof=replace(PROOF, started_at=NOW - 300, ended_at=NOW - 300)),
    ),
    "a later release's schema": ("schema", replace(MET, server=Server(NOW, "9999"))),
    "lists that an event or a letter explains": (
        "shadow", compared(Shadow(matched=990, pending=5, lettered=5, dropped=7, last_at=NOW)),
    ),
}  # fmt: skip


def gate(name: str, facts: Facts) -> Gate:
    found = [gate for phase in GATES for gate in gates_of(phase, facts, Limits()) if gate.name == name]
    assert {replace(one, next_steps=()) for one in found} == {replace(found[0], next_steps=())}
    return found[0]


@pytest.mark.parametrize("phase", GATES)
def test_where_all_is_well_every_gate_is_met_and_to_advance_is_next(phase: Phase) -> None:
    gates = gates_of(phase, MET, Limits())
    assert [gate.name for gate in gates if not gate.is_met] == []
    assert all(gate.next_steps == () for gate in gates)
    cutover = replace(HELD, phase=phase)
    assert (is_open(cutover, gates), next_steps(cutover, gates)) == (True, [commands.ADVANCE])


@pytest.mark.parametrize("case", UNMET)
def test_a_gate_is_not_met_by(case: str) -> None:
    name, facts, said, steps = UNMET[case]
    found = gate(name, facts)
    assert (found.is_met, list(found.next_steps)) == (False, steps)
    assert said in found.value


@pytest.mark.parametrize("case", STILL_MET)
def test_a_gate_is_met_by(case: str) -> None:
    assert gate(*STILL_MET[case]).is_met


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_meets_no_gate(name: str) -> None:
    found = gate(name, BARE)
    assert (found.is_met, found.value, list(found.next_steps)) == (False, NOT_KNOWN, UNKNOWN[name])


def test_each_gate_is_tried_in_each_way() -> None:
    names = {gate.name for phase in GATES for gate in gates_of(phase, MET, Limits())}
    assert names == {name for name, *_ in UNMET.values()}
    assert names == {*UNKNOWN, "schema"}  # of which it is known that there is none


def test_what_was_seen_has_its_age() -> None:
    assert (gate("audit", MET).age_seconds, gate("shadow", MET).age_seconds) == (30, 3)
    assert (gate("backfill", MET).age_seconds, gate("workers", MET).age_seconds) == (60, None)


def test_steps_are_those_of_the_gates_that_are_not_met_each_once_in_their_order() -> None:
    facts = replace(MET, workers=[], history=History(), captured=None)
    gates = gates_of(Phase.OUTBOX, facts, Limits())
    assert next_steps(replace(HELD, phase=Phase.OUTBOX), gates) == [
        commands.WORKER, commands.CAPTURE_STATUS, commands.BACKFILL, commands.AUDIT,
    ]  # fmt: skip


def test_in_the_last_phase_nothing_is_left_to_do_but_where_lists_differ() -> None:
    moved = replace(HELD, phase=Phase.READS_MOVED)
    assert gates_of(Phase.READS_MOVED, MET, Limits()) == []
    assert (is_open(moved, []), next_steps(moved, [])) == (True, [])
    differing = replace(moved, shadow=replace(MATCHED, mismatched=1))
    assert not is_open(differing, [])
    assert next_steps(differing, [])[-1] == commands.BACK


def test_operators_ask_for_more_or_less(monkeypatch: pytest.MonkeyPatch) -> None:
    url = SecretStr("postgresql://h/d")
    assert limits_of(TurnSettings(database_url=url)) == Limits()
    for name in ("WRITERS_SECONDS", "IN_SYNC_SECONDS", "LISTS_COMPARED"):
        monkeypatch.setenv(f"PHASE_{name}", "7")
    assert limits_of(TurnSettings(database_url=url)) == Limits(7, 7, 7) != Limits()
    counted = captured(replace(COUNTS, writers=[written(8)]))
    assert all(gate.is_met for gate in gates_of(Phase.OUTBOX, counted, Limits(7, 7, 7)))
