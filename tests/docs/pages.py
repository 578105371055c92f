"""A page of documentation as what it asks a reader to type, and what it promises to show."""

import re
import shlex
from dataclasses import dataclass

FENCE = re.compile(r"^```(\w*)[^\S\n]*(?:title=\"([^\"]*)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OF_A_SHELL = ("", "sh", "bash", "console")
COMMENT = re.compile(r"(?:^|\s+)#\s.*")
# In running text: what begins with a program and goes on with a word.
INLINE = re.compile(r"`((?:make|docker|python|alembic|uvicorn|arq|psql|curl|git|pip) [^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: commands to type, or output to expect."""

    language: str
    title: str
    text: str
    line: int

    @property
    def is_typed(self) -> bool:
        return self.language in OF_A_SHELL

    @property
    def is_shown(self) -> bool:
        return self.language == "text"

    def commands(self) -> list[str]:
        """Return the commands, without comments; one that goes over several lines stays one."""
        commands: list[str] = []
        begun = ""
        for line in self.text.splitlines():
            begun += line if begun else COMMENT.sub("", line)
            if is_whole(begun):
                commands += [begun] if begun else []
                begun = ""
            else:
                begun += "\n"
        assert not begun, f"line {self.line}: {begun!r} does not end"
        return commands


def is_whole(command: str) -> bool:
    """Say whether a shell would run this, and not wait for more of it."""
    if command.endswith("\\"):
        return False
    try:
        shlex.split(command)
    except ValueError:
        return False
    return True


def blocks_of(page: str) -> list[Block]:
    """Return the page's blocks of commands and of output, in order."""
    found = [
        Block(match[1], match[2] or "", match[3], page.count("\n", 0, match.start()) + 1)
        for match in FENCE.finditer(page)
    ]
    return [block for block in found if block.is_typed or block.is_shown]


def fenced_commands(page: str) -> list[str]:
    """Return what the page's blocks ask to type."""
    return [command for block in blocks_of(page) if block.is_typed for command in block.commands()]


def commands_of(page: str) -> list[str]:
    """Return every command of the page, those in running text as well, each once."""
    running_text = FENCE.sub("", page)
    return list(dict.fromkeys([*fenced_commands(page), *INLINE.findall(running_text)]))
