"""Views of the collections that each get one thing wrong."""

import pytest

from shared.phase import view
from shared.phase.view import function as right_function
from shared.place import Place
from tests.twins.replacing import Put, replaced


def with_function(old: str, new: str) -> Put:
    """Change a part of the function; `{legacy}` and `{ours}` stand for the schemas."""

    def put(patch: pytest.MonkeyPatch) -> None:
        def function(place: Place) -> str:
            words = (part.format_map(place._asdict()) for part in (old, new))
            return replaced(right_function(place), *words)

        patch.setattr(view, "function", function)

    return put
