"""What the command lines of all commands have in common; light, so that --help answers at once."""

import argparse
from typing import NoReturn

from shared.process.printable import printable
from shared.variables import COMMANDS

ENVIRONMENT = f"""\
environment:
{chr(10).join(f"  {name.upper():14} {meaning}" for name, meaning in COMMANDS.items())}
"""
EXIT_STATUS = """\
exit status: 0 on success, 1 when work failed or is not finished, or drift is left,
2 on wrong usage or an incomplete environment."""


class Parser(argparse.ArgumentParser):
    """A parser that repeats wrong words to a terminal as they can be shown."""

    def error(self, message: str) -> NoReturn:
        """End the process with status 2, the usage and the message."""
        super().error(printable(message))


def text(word: str) -> str:
    """Read a word that is to be compared with texts; one whose bytes are no text is refused."""
    try:
        word.encode()
    except UnicodeEncodeError:
        msg = "holds bytes that are no text"
        raise argparse.ArgumentTypeError(msg) from None
    return word


def argument_parser(
    module: str, description: str, *, takes_json: bool = True, exit_status: str = EXIT_STATUS
) -> argparse.ArgumentParser:
    """Make a parser whose --help explains the environment and the exit status as well.

    Args:
        module: what follows `python` on the command line.
        description: the first paragraphs of --help.
        takes_json: False when each of its subcommands takes --json for itself, see `add_json`.
        exit_status: the last paragraph of --help.

    """
    parser = Parser(
        prog=f"python {module}",
        description=description,
        epilog=f"{ENVIRONMENT}\n{exit_status}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if takes_json:
        add_json(parser)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """Let the command take --json."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="end with one machine-readable line on stdout, and nothing else there",
    )
