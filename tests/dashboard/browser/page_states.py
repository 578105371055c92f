"""Pages made by hand: of a day with everything in it, of an empty log, and of texts that mean harm."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from worker.dashboard.page_state import (
    Audit,
    Backfill,
    Cutover,
    DeadLetter,
    Finding,
    GoOn,
    LaneTotals,
    LogSource,
    Mark,
    PageState,
    PageVerdict,
    Series,
    Trouble,
    Waiting,
    Worker,
)

NOW = 1_764_000_000.0  # 24 November 2025, 16:00 UTC
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
LANES = ("live", "repair", "backfill")
RANGES = {"15m": (15 * MINUTE, 10.0), "1h": (HOUR, 30.0), "24h": (DAY, 600.0), "all": (3 * DAY, 1800.0)}
HOSTILE = (
    "<img src=x onerror=\"document.title='broken in'\"></td><script>document.title='broken in'</script>"
    " </script><b>bold</b> \u2028 \u202egnp.exe <!-- ${1} {{snapshot}} &lt;"
)


def rich(now: float = NOW, *, live: bool = False) -> PageState:
    """Return three days of work: two drifts, one of them open, a backfill under way, letters, two workers."""
    return PageState(
        made_at=now,
        live=live,
        source=LogSource(
            files=3,
            bytes_read=412_331_906,
            bytes_total=436_207_616,
            lines=1_204_118,
            broken=7,
            broken_sample='{"timestamp": "2025-11-24T11:02:17.4',
            unknown=2,
            newer_schema=0,
            first_at=now - 3 * DAY,
            last_at=now - 2.4,
        ),
        verdict=PageVerdict(
            state="drift",
            tone="bad",
            title="Drift: 3",
            detail="Audit 57 found 1 missing, 1 mismatched and 1 orphaned row of 120,417 compared.",
            next_steps=["python -m worker.audit --repair", "python -m worker.dead_letters list"],
            since=now - 40 - 9 * MINUTE,
            verified_at=now - 40,
            last_heartbeat_at=now - 3,
        ),
        go_on=GoOn(
            may=False,
            reasons=["2 dead letters are open.", "A backfill runs: 64 % of it is done."],
        ),
        waiting={
            "live": Waiting(pending=4, oldest_seconds=0.2),
            "repair": Waiting(pending=0, oldest_seconds=0.0),
            "backfill": Waiting(pending=100_000, oldest_seconds=38.4),
        },
        dead_letters_open=2,
        lanes=[
            _lane("live", applied=412_006, stale=188, conflated=2_411, obsolete=97, dead=3),
            _lane("repair", applied=12, stale=1, conflated=0, obsolete=1, dead=0),
            _lane("backfill", applied=771_904, stale=9_113, conflated=0, obsolete=17, dead=1),
        ],
        audits=_audits(now),
        findings=_findings(now),
        findings_total=5,
        dead_letters=_dead_letters(now),
        dead_letters_total=4,
        backfills=_backfills(now),
        workers=_workers(now),
        troubles=_troubles(now),
        series={name: _series(now, *span) for name, span in RANGES.items()},
        marks=_marks(now),
        cutover=Cutover(
            "shadow_reads",
            3,
            "Shadow reads",
            now - 20 * MINUTE,
            fell_back=True,
            lost={"further_links": 12, "tags": 1_204, "mappings": 0, "contexts": 3, "without_home": 0},
            lost_counted_at=now - 50,
        ),
    )


def good(now: float = NOW, *, live: bool = False) -> PageState:
    """Return the same days with nothing wrong at their end: repaired, closed, finished and audited again."""
    page_state = rich(now, live=live)
    drift = replace(page_state.audits[-1], at=now - 9 * MINUTE)
    repair = replace(drift, run_id=58, at=now - 6 * MINUTE, verdict="repaired", repair=True, repaired=3)
    clean = _audit(59, now - 40, 120_417, (0, 0, 0), pending=2)
    mended = [
        replace(finding, at=drift.at, after=finding.legacy, outcome="repaired", repaired_at=repair.at)
        for finding in page_state.findings
    ]
    return replace(
        page_state,
        verdict=replace(
            page_state.verdict,
            state="in_sync",
            tone="good",
            title="In sync",
            detail="120,417 pairs were compared. 2 are on the way, and none has drifted.",
            since=now - 40,
            next_steps=[],
        ),
        go_on=GoOn(may=True),
        waiting=page_state.waiting | {"backfill": Waiting(pending=0, oldest_seconds=0.0)},
        dead_letters_open=0,
        audits=[*page_state.audits[:-1], drift, repair, clean],
        findings=mended,
        dead_letters=[
            replace(
                letter,
                state="replayed" if letter.state == "dead" else letter.state,
                closed_at=now - 3 * MINUTE,
            )
            for letter in page_state.dead_letters
        ],
        backfills=[
            replace(
                page_state.backfills[0],
                status="finished",
                processed=1_200_000,
                enqueued=1_190_870,
                eta_seconds=None,
                throttled_by=None,
                duration_seconds=12 * MINUTE,
            ),
            *page_state.backfills[1:],
        ],
        series={name: _series(now, *span, backfill_ended=now - 2 * MINUTE) for name, span in RANGES.items()},
    )


def empty(now: float = NOW, *, live: bool = False) -> PageState:
    """Return what a log without a line gives."""
    return PageState(
        made_at=now,
        live=live,
        source=LogSource(0, 0, 0, 0, 0, None, 0, 0, None, None),
        verdict=PageVerdict(
            "blind", "unknown", "Blind: no heartbeat", "The log holds no heartbeat of a worker."
        ),
        go_on=GoOn(may=False, reasons=["No worker is heard: `python -m worker`."]),
        waiting={lane: Waiting(None, None) for lane in LANES},
        dead_letters_open=None,
        lanes=[],
        audits=[],
        findings=[],
        findings_total=0,
        dead_letters=[],
        dead_letters_total=0,
        backfills=[],
        workers=[],
        troubles=[],
        series={name: Series(step) for name, (_, step) in RANGES.items()},
    )


def hostile(now: float = NOW, *, live: bool = False) -> PageState:
    """Return a day on which every text that others choose is an attack."""
    page_state = rich(now, live=live)
    side = {"research_context": HOSTILE, "created_at": HOSTILE, "updated_at": None}
    for finding in page_state.findings:
        finding.collection_id = finding.project_id = HOSTILE
        finding.legacy = finding.before = finding.after = dict(side)
        finding.differs = ["research_context", HOSTILE]
    for letter in page_state.dead_letters:
        letter.error = letter.collection_id = letter.project_id = letter.event_type = HOSTILE
    for worker in page_state.workers:
        worker.name = HOSTILE
    for trouble in page_state.troubles:
        trouble.event, trouble.fields = HOSTILE, {HOSTILE: HOSTILE}
    for audit in page_state.audits:
        audit.error = audit.project_id = audit.requested_by = HOSTILE
    for run in page_state.backfills:
        run.throttled_by = run.driver = run.project_id = HOSTILE
    for mark in page_state.marks:
        mark.subject = HOSTILE
    page_state.source.broken_sample = HOSTILE
    page_state.source.unread = [HOSTILE]
    page_state.verdict.title = page_state.verdict.detail = HOSTILE
    page_state.go_on.reasons = page_state.verdict.next_steps = [HOSTILE]
    return page_state


def _wave(at: float, period: float, low: float, high: float, phase: float = 0.0) -> float:
    """Return something between both that looks neither straight nor random, and is the same each time."""
    slow = math.sin(2 * math.pi * at / period + phase)
    fast = math.sin(at / 37.0 + phase * 3) * math.sin(at / 11.3)
    return low + (high - low) * min(1.0, max(0.0, 0.5 + 0.32 * slow + 0.18 * fast))


def _lane(name: str, **outcomes: int) -> LaneTotals:
    lags = {"live": (2.1, 3.4, 9.8, 812.0), "repair": (4.0, 8.1, 8.1, 9.2)}
    p50, p95, p99, longest = lags.get(name, (9_300.0, 31_400.0, 37_900.0, 41_000.0))
    return LaneTotals(
        name,
        outcomes,
        postponed=11 if name == "live" else 0,
        batches=sum(outcomes.values()) // 90 + 1,
        lag_ms={"p50": p50, "p95": p95, "p99": p99, "max": longest},
    )


def _audits(now: float) -> list[Audit]:
    audits = []
    for number in range(56):
        at = now - 40 - (56 - number) * 540
        found = (1, 1, 0) if number in {20, 21, 22} else (0, 0, 0)
        audits.append(_audit(number + 1, at, 118_900 + number * 27, found, pending=number % 4))
    audits[23] = replace(audits[23], verdict="repaired", repair=True, missing=1, mismatched=1, repaired=2)
    audits[40] = replace(audits[40], verdict=None, error="TimeoutError", compared=41_000)
    return [*audits, _audit(57, now - 40, 120_417, (1, 1, 1), pending=2)]


def _audit(run_id: int, at: float, compared: int, found: tuple[int, int, int], pending: int) -> Audit:
    missing, mismatched, orphaned = found
    return Audit(
        run_id,
        at,
        "drift" if any(found) else "in_sync",
        "schedule",
        None,
        repair=False,
        compared=compared,
        missing=missing,
        mismatched=mismatched,
        orphaned=orphaned,
        pending=pending,
        repaired=0,
        unlisted=0,
        duration_seconds=1.4,
    )


def _side(text: str, updated: str) -> dict[str, str | None]:
    return {
        "research_context": text,
        "created_at": "2024-03-02T09:14:55.120934Z",
        "updated_at": f"2025-11-{updated}Z",
    }


def _findings(now: float) -> list[Finding]:
    kelp = "Kelp forests of the Skagerrak, transects 4 to 11, second season"
    amber = _side("Baltic amber: inclusions of Diptera", "24T15:41:00.000001")
    pollen = _side("Pollen cores, Lake Ohrid", "22T10:59:31.5")
    return [
        Finding(57, now - 40, "c-7f31a2", "p-marine-12", "mismatched", ["research_context", "updated_at"],
                _side(kelp, "24T15:51:12.880214"), _side("Kelp forests of the Skagerrak", "23T08:02:40.1")),
        Finding(57, now - 40, "c-04be19", "p-amber-3", "missing", [], amber, None),
        Finding(57, now - 40, "c-e90d77", "p-amber-3", "orphaned", [], None,
                _side("Draft, do not use", "19T18:20:03.77")),
        Finding(24, now - 40 - 33 * 540, "c-11c0de", "p-palaeo-9", "mismatched", ["research_context"],
                pollen, _side("Pollen cores, Lake Ohrid ", "22T10:59:31.5"), pollen, "repaired",
                now - 38 - 33 * 540),
        Finding(24, now - 40 - 33 * 540, "c-b7a440", "p-palaeo-9", "missing", [], pollen, None, None,
                "pending", now - 38 - 33 * 540),
    ]  # fmt: skip


def _dead_letters(now: float) -> list[DeadLetter]:
    return [
        DeadLetter(1_204_991, now - 12 * MINUTE, "c-3d0f11", "p-marine-12", "collection.updated", "api",
                   "22007", "invalid datetime format"),
        DeadLetter(1_198_240, now - 5 * HOUR, "c-77aa02", None, "collection.touched", "api", None,
                   "unknown event type"),
        DeadLetter(1_102_077, now - 26 * HOUR, "c-5c9e40", "p-palaeo-9", "collection.created", "backfill",
                   "23514", "check violation, table project_collections, constraint no_rumours", "superseded",
                   now - 25 * HOUR),
        DeadLetter(998_310, now - 50 * HOUR, "c-5c9e40", "p-palaeo-9", "collection.updated", "api", "23514",
                   "check violation, table project_collections, constraint no_rumours", "replayed",
                   now - 49 * HOUR),
    ]  # fmt: skip


def _backfills(now: float) -> list[Backfill]:
    return [
        Backfill(4, "running", now - 14 * MINUTE, now - 1, 771_904, 1_200_000, 762_774, 9_130,
                 rows_a_second=918.0, eta_seconds=466.0, driver="sync-1:4711",
                 throttled_by="100,000 backfill events wait, which is the bound (max_pending 100,000)"),
        Backfill(3, "cancelled", now - 20 * HOUR, now - 19 * HOUR, 40_000, 1_196_204, 40_000, 0,
                 duration_seconds=57.2, driver="sync-1:3988"),
        Backfill(2, "finished", now - 2 * DAY, now - 2 * DAY + 700, 18_240, 18_240, 12, 18_228,
                 duration_seconds=31.9, driver="sync-2:812", project_id="p-palaeo-9"),
    ]  # fmt: skip


def _workers(now: float) -> list[Worker]:
    return [
        Worker("sync-1:4711", "running", now - 2 * DAY, now - 3, None, 2 * DAY - 3, "up", "up", 1.8),
        Worker("sync-2:812", "silent", now - 3 * DAY, now - 7 * MINUTE, None, 3 * DAY, "up", "away", -412.0),
        Worker("sync-1:3988", "stopped", now - 3 * DAY, now - 2 * DAY, now - 2 * DAY, DAY, "up", "up", 0.4),
    ]


def _troubles(now: float) -> list[Trouble]:
    return [
        Trouble("snapshot_held", "warning", 3, now - HOUR, now - 4 * MINUTE,
                {"kind": "session", "pid": 9012, "application_name": "psql", "held_seconds": 190.2}),
        Trouble("redis_lost", "warning", 1, now - 7 * MINUTE, now - 7 * MINUTE, {"error": "ConnectionError"}),
        Trouble("request_failed", "error", 1, now - 9 * HOUR, now - 9 * HOUR,
                {"error": "KeyError", "method": "PUT", "route": "/projects/{project_id}/collections/{id}"}),
    ]  # fmt: skip


def _marks(now: float) -> list[Mark]:
    return [
        Mark("worker_started", now - 2 * DAY, subject="sync-1:4711"),
        Mark("backfill_started", now - 20 * HOUR, number=3),
        Mark("backfill_cancelled", now - 19 * HOUR, number=3),
        Mark("rolled_back", now - 40 * MINUTE, number=1_204),
        Mark("worker_stopped", now - 33 * MINUTE, subject="sync-1:4711"),
        Mark("blind", now - 33 * MINUTE, until=now - 30 * MINUTE),
        Mark("worker_started", now - 30 * MINUTE, subject="sync-1:4711"),
        Mark("backfill_started", now - 14 * MINUTE, number=4),
        Mark("backfill_paused", now - 6 * MINUTE, number=4),
        Mark("backfill_resumed", now - 5 * MINUTE, number=4),
    ]


def _series(now: float, seconds: float, step: float, backfill_ended: float = math.inf) -> Series:
    times = [now - seconds + step * number for number in range(int(seconds / step))]
    backfilling = [now - at < 14 * MINUTE and at < backfill_ended for at in times]
    heard = [not 30 * MINUTE <= now - at < 33 * MINUTE for at in times]
    written = [round(_wave(at, seconds / 2.5, 2, 22) * step) for at in times]
    live = [number if on else 0 for number, on in zip(written, heard, strict=True)]
    bulk = [
        round(900 * step * _wave(at, seconds, 0.7, 1)) if on else 0
        for at, on in zip(times, backfilling, strict=True)
    ]
    return Series(
        step,
        times,
        settled={
            "live": {
                "applied": live,
                "stale": [count // 60 for count in live],
                "conflated": [count // 12 for count in live],
                "obsolete": [count // 200 for count in live],
                "dead": [int(number == len(times) - 9) for number in range(len(times))],
            },
            "repair": {"applied": [0] * len(times)},
            "backfill": {"applied": bulk, "stale": [count // 80 for count in bulk]},
        },
        lag_ms={
            "live": {
                name: [
                    _wave(at, seconds / slow, low, high, phase) if on else None
                    for at, on in zip(times, heard, strict=True)
                ]
                for phase, (name, slow, low, high) in enumerate(
                    (("p50", 3, 1.6, 2.6), ("p95", 3, 2.4, 5.0), ("p99", 4, 3.0, 40.0))
                )
            },
            "backfill": {
                name: [
                    _wave(at, seconds, low, 3 * low) if on else None
                    for at, on in zip(times, backfilling, strict=True)
                ]
                for name, low in (("p50", 4_000.0), ("p95", 9_000.0), ("p99", 11_000.0))
            },
        },
        lag_count={"live": live, "backfill": bulk},
        lag_overall={
            "live": {"p50": 2.1, "p95": 3.9, "p99": 31.0, "max": 812.0},
            "backfill": {"p50": 9_300.0, "p95": 31_400.0, "p99": 37_900.0, "max": 41_000.0},
        },
        pending={
            "live": _known([round(_wave(at, seconds / 2, 0, 14)) for at in times], heard),
            "repair": _known([0] * len(times), heard),
            "backfill": _known([100_000 if on else 0 for on in backfilling], heard),
        },
        oldest_seconds={
            "live": _known([_wave(at, seconds / 2, 0, 0.4) for at in times], heard),
            "repair": _known([0.0] * len(times), heard),
            "backfill": _known(
                [
                    _wave(at, seconds, 10, 40) if on else 0.0
                    for at, on in zip(times, backfilling, strict=True)
                ],
                heard,
            ),
        },
        written=written,
    )


def _known(values: Sequence[float], heard: list[bool]) -> list[Any]:
    return [value if on else None for value, on in zip(values, heard, strict=True)]
