"""What the command lines of all commands have in common; light, so that --help answers at once."""

import argparse
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from shared.process.printable import printable
from shared.variables import COMMANDS

WIDTH = 78
EXIT_STATUS = """\
exit status: 0 on success, 1 when work failed or is not finished, or drift is
left, 2 on wrong usage or an incomplete environment."""
LARGEST = 2**31 - 1

Example = tuple[str, str]  # what is typed, and what it does


class Parser(argparse.ArgumentParser):
    """A parser that repeats wrong words to a terminal as they can be shown."""

    def error(self, message: str) -> NoReturn:
        """End the process with status 2, the usage and the message."""
        super().error(printable(message))


class Layout(argparse.HelpFormatter):
    """Fills paragraphs to the width of the terminal, and leaves those with indented lines as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            paragraph if "\n  " in paragraph else textwrap.fill(paragraph, width, initial_indent=indent)
            for paragraph in text.strip().split("\n\n")
        )


def argument_parser(  # noqa: PLR0913 - each is a part of --help
    module: str,
    description: str,
    *,
    examples: Sequence[Example],
    variables: Mapping[str, str] = COMMANDS,
    takes_json: bool = True,
    exit_status: str = EXIT_STATUS,
) -> argparse.ArgumentParser:
    """Make a parser whose --help has examples, and explains the environment and the exit status as well.

    Args:
        module: what follows `python` on the command line.
        description: the first paragraphs of --help.
        examples: each what follows `python MODULE`, and what it does.
        variables: what each variable of the environment is for.
        takes_json: False when each of its subcommands takes --json for itself, see `add_json`.
        exit_status: the last paragraph of --help.

    """
    prog = f"python {module}"
    parser = Parser(
        prog=prog,
        description=description,
        epilog="\n\n".join(filter(None, (_examples(prog, examples), _environment(variables), exit_status))),
        formatter_class=Layout,
    )
    if takes_json:
        add_json(parser)
    return parser


def _examples(prog: str, examples: Sequence[Example]) -> str:
    lines = [f"  {f'{prog} {words}'.strip()}\n      {meaning}" for words, meaning in examples]
    return "\n".join(["examples:", *lines])


def _environment(variables: Mapping[str, str]) -> str:
    if not variables:
        return ""
    width = max(map(len, variables)) + 2
    rest = " " * (2 + width)
    lines = [
        textwrap.fill(meaning, WIDTH, initial_indent=f"  {name.upper():{width}}", subsequent_indent=rest)
        for name, meaning in variables.items()
    ]
    return "\n".join(["environment:", *lines])


def add_json(parser: argparse.ArgumentParser) -> None:
    """Let the command take --json."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="end with one machine-readable line on stdout, and nothing else there",
    )


def text(word: str) -> str:
    """Read a word that is to be compared with texts; one whose bytes are no text is refused."""
    try:
        word.encode()
    except UnicodeEncodeError:
        msg = "holds bytes that are no text"
        raise argparse.ArgumentTypeError(msg) from None
    return word


def whole(least: int = 1, most: int = LARGEST) -> Callable[[str], int]:
    """Return what reads a whole number within bounds."""
    said = f"from {least} to {most}"
    if most >= LARGEST:
        said = f"above {least - 1}" if least > 0 else "of 0 or more"

    def read(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number {said}, not {_quoted(word)}")
        return number

    return read


def seconds(word: str) -> float:
    """Read a pause."""
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, 0 or more, not {_quoted(word)}")
    return number


def _quoted(word: str) -> str:
    return repr(printable(word, 40))
