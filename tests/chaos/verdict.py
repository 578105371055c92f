"""The verdict: what users were told, held against what the database has and what the processes say."""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import asyncpg

from shared.logs.contract import problems
from tests.chaos.supervision import Life, Supervised
from tests.chaos.system import System, connected
from tests.chaos.users import NOT_FOUND, PROJECT, Kind, Write, name_of, text_of
from tests.drift import drift
from tests.processes import HANG_SECONDS, environment, running

# A crash of PostgreSQL takes back what was committed before it, and is not yet in the WAL. On a machine that
# is busy that may be a while, and so may be the time until we have read a batch's lines.
LOST_WITH_WAL_SECONDS = 10.0
SLOW_LINE_SECONDS = 10.0
MOST_SHOWN = 3

ACTIVITIES = """
    SELECT split_part(activity_type, '_', 2) AS kind, split_part(description, '''', 2) AS name,
        activity_metadata ->> 'collection_id' AS collection_id
    FROM activity_logs
"""
EVENTS = """
    SELECT collection_id, split_part(event_type, '.', 2) AS kind FROM remembered WHERE id <> ALL($1)
"""
LEGACY = (
    "SELECT collection_id, collection_name, description, is_active FROM collections WHERE project_id = $1"
)


@dataclass(frozen=True)
class Check:
    """One sentence of the verdict: whether it holds, how many were looked at, and what contradicts it."""

    name: str
    looked_at: int
    against: Sequence[str] = ()

    @property
    def holds(self) -> bool:
        return not self.against

    @property
    def examples(self) -> str:
        return ", ".join(self.against[:MOST_SHOWN])


def check(name: str, looked_at: int, against: Iterable[object]) -> Check:
    return Check(name, looked_at, [str(item) for item in against])


async def judge_database(system: System, writes: Sequence[Write]) -> list[Check]:
    """Wait until all is settled and compare; the users must have stopped."""
    async with connected(system.postgres) as sql:
        left = await drain(sql)
        activities = [tuple(row) for row in await sql.fetch(ACTIVITIES)]
        events = [tuple(row) for row in await sql.fetch(EVENTS, list(system.planted))]
        legacy = await sql.fetch(LEGACY, PROJECT)
        dead = {row["id"] for row in await sql.fetch("SELECT id FROM outbox_dead_letters")}
        return [
            *judge_writes(writes, activities),
            judge_legacy(writes, activities, legacy),
            judge_halves(activities, events),
            check("the outbox is empty", len(events) + len(system.planted), left),
            check("drift is 0 by the tests' own comparison", len(legacy), await drift(sql)),
            await judge_audit(system),
            judge_dead_letters(system, dead),
        ]


async def drain(sql: asyncpg.Connection) -> list[int]:
    """Wait until the outbox is empty; return the ids that stay in it."""
    until = time.monotonic() + HANG_SECONDS
    while True:
        ids = [row["id"] for row in await sql.fetch("SELECT id FROM outbox_events ORDER BY id")]
        if not ids or time.monotonic() > until:
            return ids
        await asyncio.sleep(0.1)


def identity(write: Write) -> tuple[str, str | None]:
    """Return what identifies a write among the activities: a deletion's collection, or else its text."""
    return write.kind, write.collection_id if write.kind is Kind.DELETE else name_of(write.number)


def count_activities(activities: Iterable[tuple[str, str, str]]) -> Counter[tuple[str, str | None]]:
    return Counter((kind, cid if kind == Kind.DELETE else name) for kind, name, cid in activities)


def judge_writes(writes: Sequence[Write], activities: Sequence[tuple[str, str, str]]) -> list[Check]:
    """Hold each answer against the activity row that the write's own transaction added."""
    present = count_activities(activities)
    acknowledged = [write for write in writes if write.acknowledged]
    refused = {identity(write) for write in writes if not write.acknowledged and not write.in_doubt}
    refused -= {identity(write) for write in writes if write.acknowledged or write.in_doubt}
    deletions_in_doubt = {
        write.collection_id for write in writes if write.kind is Kind.DELETE and write.in_doubt
    }
    return [
        check(
            "every acknowledged write is present",
            len(acknowledged),
            [identity(write) for write in acknowledged if not present[identity(write)]],
        ),
        check("no write is present twice", len(activities), [key for key, n in present.items() if n > 1]),
        check("no refused write is present", len(refused), [key for key in refused if present[key]]),
        check(
            "every answer is 200 or 503 with Retry-After, or 404 after a deletion in doubt",
            len(writes),
            [
                f"{write.status} to {identity(write)}"
                for write in writes
                if not is_expected(write, deletions_in_doubt)
            ],
        ),
    ]


def is_expected(write: Write, deletions_in_doubt: set[str | None]) -> bool:
    if write.status == NOT_FOUND:
        return write.collection_id in deletions_in_doubt
    return write.status in {None, 200} or (write.status == 503 and write.retry_after is not None)


def judge_legacy(
    writes: Sequence[Write], activities: Sequence[tuple[str, str, str]], legacy: Sequence[asyncpg.Record]
) -> Check:
    """Hold each collection against its last acknowledged write, or one in doubt that was committed."""
    committed = {name for kind, name, _ in activities if kind != Kind.DELETE}
    deleted = {collection_id for kind, _, collection_id in activities if kind == Kind.DELETE}
    possible: defaultdict[str, set[int]] = defaultdict(set)
    last: dict[str, Write] = {}
    for write in sorted(writes, key=lambda write: write.number):
        if write.kind is Kind.DELETE or not write.collection_id:
            continue
        if write.acknowledged:
            last[write.collection_id] = write
        elif write.in_doubt and name_of(write.number) in committed:
            possible[write.collection_id].add(write.number)
    created_in_doubt = {
        name_of(write.number) for write in writes if write.kind is Kind.CREATE and write.in_doubt
    }
    against = []
    for row in legacy:
        collection_id, name = row["collection_id"], row["collection_name"]
        numbers = possible[collection_id] | ({last[collection_id].number} if collection_id in last else set())
        known = {(name_of(number), text_of(number)) for number in numbers}
        if collection_id not in last and name in created_in_doubt & committed:
            known.add((name, name.replace("write", "text")))
        is_right = (name, row["description"]) in known and row["is_active"] == (collection_id not in deleted)
        against += [] if is_right else [f"{collection_id} is {name!r}, active {row['is_active']}"]
    missing = set(last) - {row["collection_id"] for row in legacy}
    return check("every collection is as its last write left it", len(legacy), [*against, *missing])


def judge_halves(activities: Sequence[tuple[str, str, str]], events: Sequence[tuple[str, str]]) -> Check:
    """Each activity has its event, and each event its activity."""
    difference = Counter((collection_id, kind) for kind, _, collection_id in activities)
    difference.subtract(Counter(events))
    return check("no write is there by half", len(activities), [key for key, n in difference.items() if n])


async def judge_audit(system: System) -> Check:
    """Run the product's own audit, as an operator does."""
    env = environment(system.logins["operator"], system.valkey.url)
    with running(["-m", "worker.audit", "--json"], env) as audit:
        code = await audit.exit_code()
    found = json.loads(audit.lines[-1]) if audit.lines[-1].startswith("{") else {}
    is_proved = code == 0 and found.get("verdict") == "in_sync"
    against = [] if is_proved else [f"exit status {code}: {audit.lines[-1].strip()}"]
    return check("`python -m worker.audit` finds none", found.get("compared", 0), against)


def judge_dead_letters(system: System, dead: set[int]) -> Check:
    planted = {event_id for event_id, outcome in system.planted.items() if outcome == "dead"}
    against = [f"{event_id} was planted" for event_id in planted - dead]
    against += [f"{event_id} was not planted" for event_id in dead - planted]
    return check("the dead letters are those planted", len(dead), against)


def judge_processes(system: System) -> list[Check]:
    """Read all lives; the processes must have been stopped."""
    lives = [(process.name, life) for process in system.processes for life in process.lives]
    ends = [
        f"{process.name} ended with {end.code}"
        for process in system.processes
        for end in process.ends
        if not end.was_killed
    ]
    stops = [
        f"{process.name} stopped with {process.last_code}"
        for process, expected in [
            *((worker, 0) for worker in system.workers),
            *((api, -15) for api in system.apis),
        ]
        if process.last_code not in {0, expected}
    ]
    strange = [f"{name}: {line.strip()[:200]}" for name, life in lives for line in strange_lines(life)]
    files = [system.log_file(process) for process in system.processes]
    return [
        check("no process ended by itself, and each stopped when told to", len(lives), [*ends, *stops]),
        check(
            "every line keeps the log's contract, and has no traceback",
            sum(len(life.lines) for _, life in lives),
            strange,
        ),
        check("so is every line of the log files", sum(map(count_of_lines, files)), strange_in_files(files)),
        *(
            judge_log_file(process, system.log_file(process))
            for process in system.processes
            if reported_losses(process)
        ),
        judge_outcomes(system, [life for _, life in lives]),
    ]


def strange_lines(life: Life) -> list[str]:
    """Return what is no line of ours."""
    lines = life.lines.copy()
    if life.was_killed and lines and not lines[-1].endswith("\n"):
        del lines[-1]
    return [line for line in lines if not is_ours(line)]


def is_ours(line: str) -> bool:
    try:
        fields = json.loads(line)
    except ValueError:
        return False
    return isinstance(fields, dict) and not problems(fields) and "exception" not in fields


def count_of_lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def reported_losses(process: Supervised) -> int:
    return sum(line["lost"] for life in process.lives for line in life.logged("log_file_restored"))


def judge_log_file(process: Supervised, file: Path) -> Check:
    """Hold what a file lacks of stdout's lines against what was reported; a SIGKILL may cost one more."""
    printed = Counter(line for life in process.lives for line in life.lines)
    written = Counter(file.read_text(encoding="utf-8").splitlines(keepends=True))
    missing = (printed - written).total()
    unreported = missing - reported_losses(process)
    kills = sum(end.was_killed for end in process.ends)
    against = [] if 0 <= unreported <= kills else [f"{missing} missing, {reported_losses(process)} reported"]
    return check(f"the log file of {process.name} lacks only what was reported", missing, against)


def strange_in_files(files: Sequence[Path]) -> list[str]:
    return [
        f"{file.name}: {line[:200]}"
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
        if not is_ours(line)
    ]


def judge_outcomes(system: System, lives: Sequence[Life]) -> Check:
    """Find events that were applied twice, but for those that a crash of PostgreSQL had taken back.

    A batch whose worker was killed before it wrote its lines is in none; no event is in two.
    """
    applied: defaultdict[int, list[float]] = defaultdict(list)
    against = []
    for life in lives:
        for line, arrival in zip(life.lines, life.arrivals, strict=False):
            fields = json.loads(line) if line.startswith('{"timestamp"') and "event_settled" in line else {}
            if fields.get("outcome") == "applied":
                applied[fields["event_id"]].append(arrival)
            if fields.get("event_id") in system.planted and fields["outcome"] == "applied":
                against.append(f"{fields['event_id']} is poison, and was applied")
    for event_id, arrivals in applied.items():
        against += [
            f"{event_id} twice, {later - earlier:.3f} s apart"
            for earlier, later in pairwise(sorted(arrivals))
            if not was_taken_back(system, earlier, later)
        ]
    return check("no event was applied twice", len(applied), against)


def was_taken_back(system: System, earlier: float, later: float) -> bool:
    """Say whether a crash of PostgreSQL may have undone the first; batches do not wait for the disk."""
    return any(
        earlier - SLOW_LINE_SECONDS < crash < later
        for crash in system.crashes
        if crash - earlier < LOST_WITH_WAL_SECONDS
    )
