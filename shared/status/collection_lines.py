"""How one collection is shown: every part, each row a line, and a dash for what is not known."""

from collections.abc import Iterator, Sequence

from shared.status.collection import APPLIED, EVENT, LEGACY, LETTER, TARGET, Collection, Values

DASH = "-"
LONGEST = 200
TITLES = {
    "legacy": ("collections", LEGACY),
    "target": ("project_collections", TARGET),
    "applied": ("applied", APPLIED),
    "events": ("events that wait", EVENT),
    "letters": ("dead letters", LETTER),
    "findings": ("findings of audits", ("audit_run_id", "kind", "found_at", "outcome")),
}


def lines(found: Collection) -> Iterator[str]:
    yield f"collection {found.collection_id}"
    for part, (title, names) in TITLES.items():
        rows = getattr(found, part)
        if isinstance(rows, dict):
            rows = [rows] if rows else []
        yield from _part(title, names, rows, found.unknown.get(part))


def _part(
    title: str, names: Sequence[str], rows: Sequence[Values] | None, unknown: str | None
) -> Iterator[str]:
    if rows is None:
        yield f"{title}: {DASH} ({unknown})"
    elif not rows:
        yield f"{title}: none"
    for row in rows or ():
        yield f"{title}: " + ", ".join(f"{name} {_shown(row, name)}" for name in names)


def _shown(row: Values, name: str) -> str:
    if name not in row:
        return DASH
    if row[name] is None:
        return "NULL"
    text = str(row[name])
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
