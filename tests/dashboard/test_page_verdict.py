"""The verdict, rule by rule, and whether one may go on."""

from dataclasses import replace

import pytest

from worker.dashboard.page_state import Audit, Backfill, Waiting
from worker.dashboard.page_verdict import Evidence, go_on, page_verdict

NOW = 1_000_000.0


def audit(ago: float, verdict: str | None = "in_sync", **fields: object) -> Audit:
    plain = Audit(
        run_id=1, at=NOW - ago, verdict=verdict, requested_by="schedule", project_id=None, repair=False,
        compared=50, missing=0, mismatched=0, orphaned=0, pending=0, repaired=0, unlisted=0,
        duration_seconds=1.0,
    )  # fmt: skip
    return replace(plain, **fields)  # type: ignore[arg-type]


def evidence(*audits: Audit, **others: object) -> Evidence:
    """Return what lets one go on, but for what is given."""
    quiet = Evidence(
        now=NOW,
        last_heartbeat_at=NOW - 5,
        database_away_since=None,
        waiting={lane: Waiting(0, 0.0) for lane in ("live", "repair", "backfill")},
        audits=list(audits),
        dead_letters_open=0,
        backfills=[],
    )
    return replace(quiet, **others)  # type: ignore[arg-type]


def waiting(lane: str, pending: int, oldest: float) -> dict[str, Waiting]:
    return {
        **{name: Waiting(0, 0.0) for name in ("live", "repair", "backfill")},
        lane: Waiting(pending, oldest),
    }


def run(status: str, project_id: str | None = None) -> Backfill:
    return Backfill(7, status, NOW - 60, NOW, 10, 20, 5, 5, project_id=project_id)


DRIFT = audit(30, "drift", missing=2, mismatched=1)
LATE = waiting("live", 3, 61.0)
AWAY = NOW - 40
CLEAN = audit(20)


@pytest.mark.parametrize(
    ("given", "state", "title", "since"),
    [
        pytest.param(evidence(DRIFT, last_heartbeat_at=None), "blind", "Blind", None, id="no heartbeat"),
        (evidence(DRIFT, last_heartbeat_at=NOW - 16, database_away_since=AWAY), "blind", "Blind", NOW - 1),
        (evidence(CLEAN, last_heartbeat_at=NOW - 15), "in_sync", "In sync", NOW - 20),
        (evidence(DRIFT, database_away_since=AWAY), "database_away", "PostgreSQL is away", AWAY),
        (evidence(DRIFT, waiting=LATE), "drift", "Drift: 3", NOW - 30),
        (evidence(audit(90, "drift", missing=1), DRIFT), "drift", "Drift: 3", NOW - 90),
        (evidence(audit(90, "drift", missing=1), audit(60), DRIFT), "drift", "Drift: 3", NOW - 30),
        (evidence(DRIFT, audit(20, None, error="cut off")), "drift", "Drift: 3", NOW - 30),
        (evidence(DRIFT, audit(20, project_id="p")), "drift", "Drift: 3", NOW - 30),
        (evidence(audit(30, "drift", missing=5, repaired=3)), "drift", "Drift: 2", NOW - 30),
        (evidence(audit(30, "in_sync", missing=1)), "drift", "Drift: 1", NOW - 30),
        (evidence(CLEAN, audit(10, "drift", orphaned=4, project_id="p")), "drift", "Drift: 4", NOW - 10),
        (evidence(audit(30, "drift", orphaned=4, project_id="p"), CLEAN), "in_sync", "In sync", NOW - 20),
        (evidence(CLEAN, audit(10, "drift", orphaned=4, project_id="p"), audit(5, project_id="p")),
         "in_sync", "In sync", NOW - 20),
        (evidence(CLEAN, audit(10, "drift", orphaned=4, project_id="p"), audit(5, project_id="q")),
         "drift", "Drift: 4", NOW - 10),
        (evidence(CLEAN, audit(10, "incomplete", error="short")), "incomplete", "Not proved", NOW - 10),
        (evidence(CLEAN, audit(10, None), audit(5, None)), "incomplete", "Not proved", NOW - 10),
        (evidence(audit(10, "incomplete")), "incomplete", "Not proved", NOW - 10),
        pytest.param(
            evidence(CLEAN, audit(10, "repaired", missing=2, repaired=2)),
            "repaired",
            "Repaired",
            NOW - 10,
            id="repaired",
        ),
        (evidence(audit(30, "repaired", missing=2, repaired=2), CLEAN), "in_sync", "In sync", NOW - 20),
        (evidence(), "unverified", "Not verified", None),
        (evidence(audit(10, project_id="p")), "unverified", "Not verified", None),
        (evidence(audit(301), waiting=LATE), "outdated", "Out of date", NOW - 1),
        (evidence(audit(300)), "in_sync", "In sync", NOW - 300),
        (evidence(audit(499, duration_seconds=20.0)), "in_sync", "In sync", NOW - 499),
        (evidence(audit(501, duration_seconds=20.0)), "outdated", "Out of date", NOW - 1),
        (evidence(CLEAN, waiting=LATE), "late", "Late", NOW - 6),
        (evidence(CLEAN, waiting=waiting("live", 3, 60.0)), "in_sync", "In sync", NOW - 20),
        (evidence(CLEAN, waiting=waiting("backfill", 3, 600.0)), "in_sync", "In sync", NOW - 20),
        (evidence(audit(90), audit(50), CLEAN), "in_sync", "In sync", NOW - 90),
        (evidence(audit(90, "drift", missing=1), audit(50), CLEAN), "in_sync", "In sync", NOW - 50),
        (evidence(audit(50), audit(10, "pending", pending=2)), "in_sync", "In sync", NOW - 50),
    ],
)  # fmt: skip
def test_the_first_rule_that_has_something_to_say_decides(
    given: Evidence, state: str, title: str, since: float | None
) -> None:
    answer = page_verdict(given)
    assert (answer.state, answer.title) == (state, title)
    assert answer.since == (None if since is None else pytest.approx(since))
    assert (answer.tone == "good") == (state == "in_sync")


def test_a_verdict_says_what_it_rests_on() -> None:
    answer = page_verdict(evidence(audit(50), audit(10, "incomplete"), audit(5, project_id="p")))
    assert answer.verified_at == NOW - 50
    assert (answer.last_heartbeat_at, answer.blind_after_seconds) == (NOW - 5, 15)


def test_events_on_their_way_are_named_and_are_no_drift() -> None:
    assert "2 are on the way" in page_verdict(evidence(audit(10, "pending", pending=2))).detail


def test_one_may_go_on_when_all_is_proved_and_quiet() -> None:
    answer = go_on(quiet := evidence(CLEAN), page_verdict(quiet))
    assert (answer.may, answer.reasons) == (True, [])


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (evidence(CLEAN, last_heartbeat_at=NOW - 16), "heartbeat"),
        (evidence(CLEAN, database_away_since=AWAY), "PostgreSQL"),
        (evidence(DRIFT), "--repair"),
        (evidence(audit(9, None)), "proves nothing"),
        (evidence(audit(9, "repaired", missing=1, repaired=1)), "repaired something"),
        (evidence(), "No audit"),
        (evidence(audit(400)), "old"),
        (evidence(CLEAN, waiting=LATE), "late"),
        (evidence(CLEAN, waiting=waiting("repair", 3, 1.0)), "Events of repairs wait: 3"),
        (evidence(CLEAN, waiting=waiting("backfill", 3, 1.0)), "Events of backfills wait: 3"),
        (evidence(CLEAN, dead_letters_open=2), "Dead letters are open: 2"),
        (evidence(CLEAN, backfills=[run("running")]), "Backfill 7 is running: 10 of 20"),
        (evidence(CLEAN, backfills=[run("paused")]), "is paused"),
        (evidence(CLEAN, backfills=[run("finished", "p"), run("interrupted")]), "was interrupted"),
    ],
)
def test_each_obstacle_alone_forbids_to_go_on_and_is_a_sentence(given: Evidence, word: str) -> None:
    answer = go_on(given, page_verdict(given))
    assert not answer.may
    [reason] = answer.reasons
    assert word in reason
    assert reason.endswith(".")


@pytest.mark.parametrize(
    "backfills",
    [
        [run("finished")],
        [run("cancelled")],
        [run("finished"), run("interrupted")],
        [run("cancelled"), run("finished")],
    ],
)
def test_what_a_later_whole_backfill_made_up_for_is_no_obstacle(backfills: list[Backfill]) -> None:
    quiet = evidence(CLEAN, backfills=backfills)
    assert go_on(quiet, page_verdict(quiet)).may


def test_every_obstacle_is_named() -> None:
    given = evidence(
        DRIFT, waiting={"live": Waiting(1, 99.0), "repair": Waiting(1, 1.0), "backfill": Waiting(1, 1.0)},
        dead_letters_open=1, backfills=[run("running")],
    )  # fmt: skip
    assert len(go_on(given, page_verdict(given)).reasons) == 6
