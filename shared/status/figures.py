"""What stands below the verdict: a line for each figure, with a dash where nothing is known."""

from collections.abc import Iterator

from shared.process.printable import printable
from shared.revision import REVISION
from shared.status.letters import MOST_LETTERS
from shared.status.waiting import MOST_COUNTED
from shared.verdict.cutover import phase_line
from shared.verdict.facts import Facts, LockHolder, PastTheOutbox, Worker
from shared.verdict.words import clock, count, percent, span, who

DASH = "-"
NAMED = 5  # of many of a kind; the others are counted
WIDTH = 15
LANE_WORDS = {"live": "live writes", "repair": "repairs", "backfill": "backfill events"}


def lines(facts: Facts) -> Iterator[str]:
    for name, value in rows(facts):
        yield f"{name:<{WIDTH}} {printable(value)}"


def rows(facts: Facts) -> Iterator[tuple[str, str]]:
    server, unknown = facts.server, facts.unknown
    revision = DASH if "schema" in unknown else server.revision or "none"
    yield "schema", f"revision {revision}; this release needs {REVISION}"
    if server.is_standby:
        yield "server", "a hot standby: what it shows may be behind its primary, and its locks are its own"
    if server.revision is None and "schema" not in unknown:
        return
    yield "workers", _workers(facts)
    for name, said in LANE_WORDS.items():
        yield said, _lane(facts, name)
    if facts.later_versions:
        yield "later versions", count(facts.later_versions, "event waits", "events wait")
    yield "held up by", _holders(facts)
    yield "backfill", _backfill(facts)
    yield "last audit", _audit(facts)
    yield "dead letters", _letters(facts)
    yield "sequences", _sequences(facts)
    yield "capture", _captured(facts)
    yield "phase", phase_line(facts) or _why(facts, "cutover")


def _why(facts: Facts, part: str) -> str:
    return f"{DASH} ({facts.unknown[part]})" if part in facts.unknown else DASH


def _workers(facts: Facts) -> str:
    if facts.workers is None:
        return _why(facts, "workers")
    now = facts.server.now
    gone = [worker for worker in facts.workers if worker.ended_at is None and worker not in facts.alive]
    ended = [worker for worker in facts.workers if worker.ended_at is not None]
    said = [f"{len(facts.alive)} alive{_named(facts.alive, now)}"]
    if gone:
        said.append(f"{len(gone)} gone without a word{_named(gone, now)}")
    if ended:
        said.append(f"{len(ended)} ended in good order{_named(ended, now)}")
    return "; ".join(said)


def _named(workers: list[Worker], now: float) -> str:
    if not workers:
        return ""
    named = [
        f"{worker.name}, {span(now - (worker.ended_at or worker.heard_at))} ago" for worker in workers[:NAMED]
    ]
    more = [f"and {len(workers) - NAMED} more"] if len(workers) > NAMED else []
    return f" ({'; '.join(named + more)})"


def _lane(facts: Facts, name: str) -> str:
    if facts.lanes is None:
        return _why(facts, "lanes")
    lane = facts.lanes[name]
    oldest = "" if lane.oldest_seconds is None else f", the oldest for {span(lane.oldest_seconds)}"
    more = " or more" if lane.pending >= MOST_COUNTED else ""
    return f"{lane.pending:,}{more} {'waits' if lane.pending == 1 else 'wait'}{oldest}"


def _holders(facts: Facts) -> str:
    if facts.holders is None:
        return _why(facts, "holders")
    if not facts.holders:
        return "nobody"
    return "; ".join(_holder(holder) for holder in facts.holders[:NAMED])


def _holder(holder: LockHolder) -> str:
    held = DASH if holder.held_seconds is None else span(holder.held_seconds)
    role = "" if holder.role is None else f", role {holder.role}"
    waits = "" if holder.waiting is None else f"; {holder.waiting} waits"
    waited = "" if holder.waited_seconds is None else f" (for {span(holder.waited_seconds)} now)"
    return f"{who(holder)}{role}, for {held}{waits}{waited}"


def _backfill(facts: Facts) -> str:
    if facts.history is None:
        return _why(facts, "history")
    run = facts.history.backfill
    if run is None:
        return "none yet"
    part = f"{run.processed:,} of {run.planned:,} rows"
    scope = "" if run.project_id is None else f", project {run.project_id}"
    at = "" if run.finished_at is None else f" at {clock(run.finished_at, facts.server.now)}"
    if run.status in {"running", "paused"}:
        begun = clock(run.started_at, facts.server.now)
        return f"run {run.id}{scope}: {run.status}, {percent(run)}, {part}; started {begun}"
    return f"run {run.id}{scope}: {run.status}{at}, {part}"


def _audit(facts: Facts) -> str:
    if facts.history is None:
        return _why(facts, "history")
    audit = facts.history.whole
    if audit is None:
        return "none yet"
    said = (audit.verdict or audit.status).replace("_", " ")
    counts = f"{audit.compared:,} compared, {audit.found:,} differ, {audit.pending:,} pending"
    running = "; another is under way" if facts.history.is_auditing else ""
    ago = span(facts.server.now - audit.ended_at)
    return f"{said}, {ago} ago: {counts}, {audit.repaired:,} repaired{running}"


def _letters(facts: Facts) -> str:
    if facts.letters is None:
        return _why(facts, "letters")
    ids = ", ".join(str(letter.id) for letter in facts.letters[:NAMED])
    more = " …" if len(facts.letters) > NAMED else ""
    least = " or more" if len(facts.letters) >= MOST_LETTERS else ""
    return f"{len(facts.letters):,}{least} open{f': {ids}{more}' if ids else ''}"


def _sequences(facts: Facts) -> str:
    if facts.sequence_faults is None:
        return _why(facts, "sequences")
    return "; ".join(facts.sequence_faults) or "fit"


def _captured(facts: Facts) -> str:
    if facts.captured is None:
        return _why(facts, "captured")
    said = facts.captured.mode or "not installed"
    if not facts.captured.is_whole:
        said += ", but triggers of it are gone or disabled: python -m worker.capture status"
    writers = [_past_the_outbox(writer, facts.server.now) for writer in facts.captured.writers[:NAMED]]
    if more := len(facts.captured.writers) - len(writers):
        writers.append(f"and {more} more")
    if facts.captured.mode is None and not writers:
        return said
    return f"{said}; past the outbox in 24 h: {'; '.join(writers) or 'nobody that was seen'}"


def _past_the_outbox(writer: PastTheOutbox, now: float) -> str:
    application = f" ({writer.application})" if writer.application else ""
    return (
        f"{writer.role}{application}, {writer.operation} {count(writer.writes, 'time', 'times')},"
        f" last {span(now - writer.last_at)} ago"
    )
