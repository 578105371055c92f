"""Captures in the database that each miss one thing."""

from collections.abc import Sequence

import pytest

from shared.place import Place
from tests.twins.replacing import Put, replaced
from worker.capture import statements
from worker.capture.definition import function as right_function
from worker.capture.definition import trigger as right_trigger
from worker.capture.statements import remove as right_remove


def with_function(*changes: tuple[str, str]) -> Put:
    """Change parts of the function, old to new."""

    def put(patch: pytest.MonkeyPatch) -> None:
        def function(place: Place) -> str:
            made = right_function(place)
            for old, new in changes:
                made = replaced(made, old, new)
            return made

        patch.setattr(statements, "function", function)

    return put


def look_at_once(patch: pytest.MonkeyPatch) -> None:
    """Look before the transaction has ended."""

    def trigger(operation: str, place: Place) -> str:
        made = right_trigger(operation, place)
        return (
            made if operation == "truncate" else replaced(made, "INITIALLY DEFERRED", "INITIALLY IMMEDIATE")
        )

    patch.setattr(statements, "trigger", trigger)


def leave_the_function(patch: pytest.MonkeyPatch) -> None:
    """Remove the triggers only."""

    def remove(place: Place, there: Sequence[str]) -> list[str]:
        return [one for one in right_remove(place, there) if not one.startswith("DROP FUNCTION")]

    patch.setattr(statements, "remove", remove)
