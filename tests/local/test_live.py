"""What `make run` shows of the log lines, and what it leaves out or folds."""

import json

from deploy.local.live import Live, Shown


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def line(event: str, **fields: object) -> str:
    common = {"timestamp": "2026-01-02T03:04:05.678901Z", "level": "info", "process": "worker"}
    return json.dumps({"event": event, **common, **fields})


def said(live: Live, event: str, **fields: object) -> str | None:
    shown = live.describe(line(event, **fields))
    return None if shown is None else shown.text


COUNTS = {"compared": 4, "missing": 2, "mismatched": 0, "orphaned": 0}
AUDITED = {"run_id": 1, "verdict": "drift", "requested_by": "schedule", **COUNTS}


def test_what_an_audit_found_is_one_sentence_and_is_not_said_again_each_minute() -> None:
    live = Live()
    for name in ("c1", "c2"):
        assert said(live, "audit_finding", run_id=1, collection_id=name, level="warning", legacy={}) is None
    first = said(live, "audit_finished", **AUDITED)
    assert first is not None
    assert first.endswith(
        "audit      drift: of 4 pairs 2 without a row (c1, c2); `python -m worker.status` says what to type"
    )
    for name in ("c1", "c2"):
        said(live, "audit_finding", run_id=2, collection_id=name)
    assert said(live, "audit_finished", **AUDITED | {"run_id": 2}) is None
    for name in ("c1", "c2"):
        said(live, "audit_finding", run_id=3, collection_id=name)
    assert said(live, "audit_finished", **AUDITED | {"run_id": 3, "requested_by": "command"}) is not None
    clean = AUDITED | {"run_id": 4, "verdict": "in_sync", "missing": 0}
    assert str(said(live, "audit_finished", **clean)).endswith("audit      in sync: 4 pairs compared")


def test_a_bulk_run_folds_into_one_line_a_second_and_its_samples_are_left_out() -> None:
    clock = Clock()
    live = Live(clock)
    batch = {"lane": "backfill", "claimed": 1000, "applied": 1000, "duration_ms": 100.0}
    shown = []
    for tenth in range(25):
        clock.now = 100 + tenth / 10
        shown.append(live.describe(line("batch_settled", **batch)))
    folds = [one for one in shown if one is not None]
    assert [one.folds for one in folds] == [True, True, True]
    assert folds[-1].text.endswith("backfill   21,000 events applied, 10,000 a second")
    assert said(live, "batch_settled", **batch | {"lane": "live"}) is None
    sampled = {"outcome": "applied", "one_of": 1000}
    assert said(live, "event_settled", **sampled) is None


def test_a_lag_above_a_second_is_in_seconds() -> None:
    event = {
        "project_id": "p", "collection_id": "c", "event_id": 7, "source": "api", "outcome": "applied",
        "event_type": "collection.updated", "lag_ms": 37003.4,
    }  # fmt: skip
    assert str(said(Live(), "event_settled", **event)).endswith("event 7 from api, 37.0 s after the write")
    assert str(said(Live(), "event_settled", **event | {"lag_ms": 4.2})).endswith("4 ms after the write")


def test_a_heartbeat_is_shown_when_what_it_says_changes() -> None:
    live = Live()
    assert said(live, "worker_heartbeat", database="up", redis="up", hint=None) is None
    gone = {"level": "warning", "database": "away", "redis": "up", "hint": None}
    assert str(said(live, "worker_heartbeat", **gone)).endswith("PostgreSQL is away, Redis is up")
    assert said(live, "worker_heartbeat", **gone) is None
    assert said(live, "worker_heartbeat", database="up", redis="up", hint=None) is not None


def test_other_warnings_are_shown_without_python_in_them_and_what_is_no_line_of_ours_is_not() -> None:
    live = Live()
    shown = said(live, "odd", level="warning", differs=["a"], legacy={"a": None}, logger="x")
    assert str(shown).endswith('warning in worker: odd differs=["a"] legacy={"a": null}')
    assert live.describe("Traceback (most recent call last):") is None
    assert live.describe("[1]") is None
    assert isinstance(live.describe(line("odd", level="error")), Shown)
