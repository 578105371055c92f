"""Somebody who follows a page: types each block into its terminal, and compares what is shown."""

import re
import time

from tests.docs.pages import Block
from tests.docs.promises import comparable, is_kept, is_kept_somewhere
from tests.docs.terminal import Terminal
from tests.processes import HANG_SECONDS

FIRST = "First terminal"  # there something runs until Ctrl-C
SECOND = "Second terminal"
CTRL_C = "^C\n"
TELL_STATUS = "echo $?"
# Such a command changes nothing: while its answer is another, a reader types it again.
LOOKS = re.compile(
    r"""curl -sS "\S+"( -H '[^']+')?; echo"""
    r"""|psql "\$DATABASE_URL" -c "SELECT [^"]*\""""
    r"""|python -m worker\.(dead_letters list|dashboard .*)"""
)


class Reader:
    """Follows a page, block by block."""

    def __init__(self, first: Terminal, second: Terminal) -> None:
        self._first = first
        self._second = second

    def follow(self, blocks: list[Block]) -> None:
        """Type and compare all of it, in order."""
        rest = list(blocks)
        while rest:
            block = rest.pop(0)
            if block.title == FIRST:
                self._in_first(block)
                continue
            assert block.title == SECOND, f"line {block.line}: which terminal?"
            assert block.is_typed, f"line {block.line}: output of no command"
            answer = rest.pop(0).text if rest and is_answer(rest[0]) else ""
            self._in_second(block, answer)

    def _in_first(self, block: Block) -> None:
        """Start what is typed; press Ctrl-C; or wait until what is promised has been shown."""
        if block.is_typed:
            for command in block.commands():
                self._first.type(command)
        elif block.text.startswith(CTRL_C):
            self._first.interrupt()
            shown, _ = self._first.until_ready()
            self._hold(block, shown, is_kept_somewhere(block.text.removeprefix(CTRL_C), shown))
        else:
            deadline = time.monotonic() + HANG_SECONDS
            while not (kept := is_kept_somewhere(block.text, self._first.unread)):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            self._hold(block, self._first.unread, kept)

    def _in_second(self, block: Block, answer: str) -> None:
        """Type the commands and compare; where they only look, look again for a while."""
        commands = block.commands()
        deadline = time.monotonic() + HANG_SECONDS
        while not is_kept(answer, shown := self._type(block, commands)):
            looks = all(LOOKS.fullmatch(command) for command in commands)
            self._hold(block, shown, looks and time.monotonic() < deadline, answer)
            time.sleep(0.2)

    def _type(self, block: Block, commands: list[str]) -> str:
        """Type the commands; each must succeed, unless the page asks for its status next."""
        shown = ""
        for command, following in zip(commands, [*commands[1:], ""], strict=True):
            said, status = self._second.run(command)
            assert status == 0 or following == TELL_STATUS, f"line {block.line}: {command}: {status}\n{said}"
            shown += said
        return shown

    @staticmethod
    def _hold(block: Block, shown: str, kept: bool, promised: str | None = None) -> None:  # noqa: FBT001
        said = f"promised:\n{comparable(promised or block.text)}\nshown:\n{comparable(shown)}"
        assert kept, f"line {block.line}, {block.title}: {block.text}\n{said}"


def is_answer(block: Block) -> bool:
    """Say whether this is what the commands right before it show."""
    return block.is_shown and not block.title
