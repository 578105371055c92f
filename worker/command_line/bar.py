"""The bar that a person at a terminal sees while a command goes on."""

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text

BAR_WIDTH = 20


class Bar(Progress):
    """Shows how far a command is, and below that what holds it up, while the block lasts.

    Where the console is no terminal nothing is drawn.
    columns: what rich is to draw behind it. stays: leave the last state standing.
    """

    _reason = ""

    def __init__(self, console: Console, *columns: ProgressColumn, stays: bool = False) -> None:
        super().__init__(
            BarColumn(BAR_WIDTH),
            TextColumn("{task.description}", markup=False),
            *columns,
            console=console,
            transient=not stays,
            disable=not console.is_terminal,
        )
        self._task = self.add_task("", total=None)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what rich is to draw now."""
        yield from super().get_renderables()
        if self._reason:
            yield Text(self._reason, style="yellow", no_wrap=True, overflow="ellipsis")

    def show(self, text: str, done: float = 0, total: float | None = None, reason: str = "") -> None:
        """Draw the text beside the bar; without a total it only shows that the command goes on."""
        self._reason = reason
        self.update(self._task, description=text, completed=done, total=total)
