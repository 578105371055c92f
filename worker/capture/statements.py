"""The transactions of the capture: install, change of mode, removal."""

from collections.abc import Sequence

from shared.capture import FUNCTION, OPERATIONS
from shared.place import Place
from worker.capture.definition import digest, function, trigger

# Writers of `collections` queue behind us while we wait for its lock, so we hardly wait, and try again.
LOCK_TIMEOUT = "50ms"
# One at a time installs or removes: any number that nobody else in the database uses.
ALONE = "SELECT pg_advisory_xact_lock(6331058142207371014)"


def install(place: Place, mode: str, there: Sequence[str]) -> list[str]:
    """Return what installs it anew, with that mode; `there` are those of TRIGGERS in its way."""
    return [
        ALONE,
        function(place),
        # Or others' triggers could run it on tables of their own, and forge events.
        f"REVOKE ALL ON FUNCTION {place.ours}.{FUNCTION}() FROM PUBLIC",
        *(_drop(name, place) for name in there),
        *(trigger(operation, place) for operation in OPERATIONS),
        _settle(place, mode),
    ]


def switch(place: Place, mode: str) -> list[str]:
    """Return what changes the mode of a capture that is in place: it locks no table of the monolith's."""
    return [ALONE, _settle(place, mode)]


def remove(place: Place, there: Sequence[str]) -> list[str]:
    """Return what removes it; the counts stay."""
    return [
        ALONE,
        *(_drop(name, place) for name in there),
        f"DROP FUNCTION IF EXISTS {place.ours}.{FUNCTION}()",
        f"DELETE FROM {place.ours}.capture_settings",  # noqa: S608 - a name that was quoted
    ]


def script(statements: Sequence[str]) -> str:
    """Return the transaction as a DBA may run it."""
    lines = ["BEGIN", f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'", *statements, "COMMIT"]
    return "".join(f"{line.strip()};\n" for line in lines)


def _drop(name: str, place: Place) -> str:
    return f"DROP TRIGGER {name} ON {place.legacy}.collections"


def _settle(place: Place, mode: str) -> str:
    return f"""
INSERT INTO {place.ours}.capture_settings (mode, definition, installed_by)
VALUES ('{mode}', '{digest(place)}', session_user)
ON CONFLICT (singleton) DO UPDATE SET
    mode = excluded.mode, definition = excluded.definition, installed_by = excluded.installed_by,
    installed_at = clock_timestamp()"""  # noqa: S608 - names that were quoted, and a word of three
