"""docs/reference/commands.md: what each command's --help says, by its parser.

`--help` itself is laid out differently by each Python, so the page is made from the parser's parts.
"""
# ruff: noqa: SLF001 - argparse offers no other way to ask a parser what it takes

import argparse
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from textwrap import dedent

from deploy.docs.markdown import code, page, table
from worker import __main__ as the_worker
from worker.audit import options as the_audit
from worker.backfill import options as the_backfill
from worker.capture import options as the_capture
from worker.dashboard import __main__ as the_dashboard
from worker.dead_letters import options as the_dead_letters
from worker.phase import options as the_phase
from worker.preflight import __main__ as the_preflight
from worker.status import __main__ as the_status

INTRODUCTION = """\
Each command explains itself with `--help`, which is where this page comes from. Results go to stdout,
progress and complaints to stderr. Log lines go to `LOG_FILE`, and to stderr where that is no terminal; the
worker's go to stdout."""

WIDTH = 100
VARIABLE = re.compile(r"^  ([A-Z_]+) ", re.MULTILINE)


def commands_page() -> str:
    return page("Commands", INTRODUCTION, *(part for parser in parsers() for part in command(parser)))


def parsers() -> list[argparse.ArgumentParser]:
    phase1 = import_module("migrations.phase1_backfill_project_collections")  # a script, in no package
    modules = (
        the_worker, the_preflight, the_status, the_backfill, the_audit, the_dead_letters, the_capture,
        the_phase, the_dashboard, phase1,
    )  # fmt: skip
    grammars = [module.grammar() for module in modules]
    grammars.insert(modules.index(the_audit) + 1, the_audit.findings_grammar())
    return grammars


def command(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## {code(parser.prog)}"
    yield parser.description or ""
    subcommands = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not subcommands:
        yield from arguments(parser, parser.prog)
    for name, subparser in (item for action in subcommands for item in action.choices.items()):
        yield f"### {code(f'{parser.prog} {name}')}"
        yield subparser.description or ""
        yield from arguments(subparser, f"{parser.prog} {name}")
    yield from ending(parser.epilog or "")


def arguments(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    """Yield how a command is called, and a table of what it takes."""
    yield f"```\n{usage(parser, name)}\n```"
    rows = [
        (code(" ".join(written(action))), of_group(group), meaning(action))
        for group in parser._action_groups
        for action in shown(group._group_actions)
    ]
    if any(group for _, group, _ in rows):
        yield table(("argument", "for", "meaning"), rows)
    elif rows:
        yield table(("argument", "meaning"), [(argument, described) for argument, _, described in rows])


def of_group(group: argparse._ArgumentGroup) -> str:
    return "" if group.title in {"options", "positional arguments"} else group.title or ""


def shown(actions: Sequence[argparse.Action]) -> list[argparse.Action]:
    """Return the actions that a page shows: --help is known, and commands below stand for themselves."""
    hidden = (argparse._HelpAction, argparse._SubParsersAction)
    return [action for action in actions if not isinstance(action, hidden)]


VALUES = {None: "{}", 0: "", "?": "[{}]", "+": "{} ...", "*": "[{} ...]"}


def written(action: argparse.Action) -> list[str]:
    value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    values = VALUES[action.nargs].format(value)
    return [word for word in (", ".join(action.option_strings), values) if word]


def usage(parser: argparse.ArgumentParser, name: str) -> str:
    """Return the line that calls the command, broken before an argument where it is too long."""
    alternatives = {
        group._group_actions[0]: group._group_actions for group in parser._mutually_exclusive_groups
    }
    others = {action for group in alternatives.values() for action in group[1:]}
    lines = [name]
    for action in sorted(shown(parser._actions), key=lambda action: not action.option_strings):
        if action in others:
            continue
        word = choice(alternatives[action]) if action in alternatives else optional(action)
        if len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append("   ")
        lines[-1] += f" {word}"
    return "\n".join(lines)


def choice(alternatives: Sequence[argparse.Action]) -> str:
    return "[" + " | ".join(" ".join(written(action)) for action in alternatives) + "]"


def optional(action: argparse.Action) -> str:
    """Return an argument as a usage line has it: in brackets unless it must be there."""
    text = " ".join(written(action))
    return text if action.required or text.startswith("[") else f"[{text}]"


def meaning(action: argparse.Action) -> str:
    """Return an argument's help with its default filled in, and what it chooses from."""
    described = (action.help or "") % {**vars(action), "prog": ""}
    choices = ", ".join(code(one) for one in action.choices or ())
    return f"{described}: {choices}" if choices else described


def ending(epilog: str) -> Iterator[str]:
    """Yield what --help says last: the variables, which another page explains, and the exit status."""
    for paragraph in filter(None, epilog.split("\n\n")):
        kind, _, text = paragraph.partition(":")
        if kind == "environment":
            names = ", ".join(code(name) for name in VARIABLE.findall(text))
            yield f"Reads {names}: [settings](settings.md)."
        elif kind == "examples":
            yield f"```\n{dedent(text).strip()}\n```"
        elif kind == "exit status":
            yield f"**Exit status:** {text.strip()}"
        else:
            yield paragraph
