"""The machine, with readers who look at all lists after each step, before the turn and after it."""

from hypothesis.stateful import invariant

from tests.model.machine import Machine
from tests.model.model import Model
from tests.phase.moving import LISTED, move, move_back

Shown = list[tuple[str, str, str | None]]  # project, collection, context


class ReadingMachine(Machine):
    """After any history lists show what the model says, and of what is not excused the legacy row."""

    @invariant()
    def read(self) -> None:
        for is_moved, turn in ((True, move), (False, move_back)):
            self.world.run(turn(self.world.sql))
            shown = [tuple(row) for row in self.world.run(self.world.sql.fetch(LISTED))]
            assert shown == expected(self.model, is_moved=is_moved)
            assert set(homes(self.model)) <= set(shown)

    def _all_agrees_at_last(self) -> None:
        """Look a last time, once all is drained."""
        self.drain([3, 2, 1], by_lane=False)
        self.read()


def homes(model: Model) -> Shown:
    """Return what `collections` says of those of which no drift is excused."""
    return [
        (legacy.project_id, name, legacy.state.context)
        for name, legacy in model.legacy.items()
        if legacy.is_active and name not in model.excused
    ]


def expected(model: Model, *, is_moved: bool) -> Shown:
    shown: Shown = []
    for name, legacy in model.legacy.items():
        if not legacy.is_active:
            continue
        contexts = {key[1]: row.state.context for key, row in model.target.items() if key[0] == name}
        is_unsettled = model.waits(name) or model.is_lettered(name)
        guard = model.guards.get(name)
        if not is_moved:
            contexts = {legacy.project_id: legacy.state.context}
        elif is_unsettled:
            if guard is not None and not guard.is_deleted:
                contexts.pop(guard.project_id, None)  # its home, or what was its home
            contexts[legacy.project_id] = legacy.state.context
        shown += [(project_id, name, context) for project_id, context in contexts.items()]
    return sorted(shown)
