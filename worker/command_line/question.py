"""Asking before something is done that --yes does without asking."""

import asyncio
import sys

from worker.command_line.console import stderr

YES = frozenset({"y", "yes"})


def can_ask() -> bool:
    """Return whether a person can answer: standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


async def agreed(question: str, interrupted: asyncio.Event) -> bool:
    """Ask at the terminal; anything but a yes, and an interrupt, is a no."""
    stderr.print(f"{question} [y/N] ", end="", soft_wrap=True)
    return (await _line_typed(interrupted)).strip().lower() in YES


async def _line_typed(interrupted: asyncio.Event) -> str:
    """Return the line that is typed at the terminal, or "" when the interrupt came first."""
    loop, typed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin, typed.set)
    waiting = [asyncio.create_task(event.wait()) for event in (typed, interrupted)]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(sys.stdin)
        for task in waiting:
            task.cancel()
    return sys.stdin.readline() if typed.is_set() else ""
