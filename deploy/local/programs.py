"""The API and the worker as programs that run beside us, watched and tied to our life."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.local.children import end_leftover, tied_to_us
from deploy.local.errors import LocalError
from deploy.local.live import Live, Shown
from shared.process.printable import printable

ROOT = Path(__file__).parents[2]
SHOWN_LINES = 15
STOP_PATIENCE_SECONDS = 10
LONGEST_LINE_BYTES = 2**20
FOLLOW_SECONDS = 0.2
UP_AND_ERASE = "\x1b[F\x1b[K"


async def launch(
    death_signal: str, *module: str, pass_fds: Sequence[int] = (), log_file: Path | None = None
) -> Process:
    """Start `python -m` with these words in the checkout; its stderr goes where its stdout goes."""
    variables = {} if log_file is None else {"LOG_FILE": str(log_file)}
    return await asyncio.create_subprocess_exec(
        *tied_to_us([sys.executable, "-m", *module], death_signal),
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        start_new_session=True,  # Ctrl-C is for us
        limit=LONGEST_LINE_BYTES,
        pass_fds=pass_fds,
    )


class Screen:
    """Where lines of all programs are shown; at a terminal, one that folds takes the place of the last."""

    def __init__(self) -> None:
        self._has_fold = False

    def show(self, line: Shown) -> None:
        replaced = line.folds and self._has_fold and sys.stdout.isatty()
        print(f"{UP_AND_ERASE if replaced else ''}{printable(line.text)}", flush=True)
        self._has_fold = line.folds


async def watch(name: str, process: Process, screen: Screen) -> None:
    """Print what a reader wants to know of the output until the program ends.

    Raises:
        LocalError: it has ended; the message shows its last lines, those that only machines want left out.

    """
    live = Live()
    last_lines: deque[str] = deque(maxlen=SHOWN_LINES)
    while process.stdout is not None and (line := await process.stdout.readline()):
        text = line.decode(errors="replace").rstrip()
        shown = live.describe(text)
        if shown is not None:
            screen.show(shown)
        if shown is not None or not text.startswith("{"):
            last_lines.append(f"  {printable(text if shown is None else shown.text)}")
    status = await process.wait()
    raise LocalError(
        "\n".join((f"The last lines of {name}:", *last_lines, f"{name} ended with status {status}."))
    )


async def follow(log: Path, screen: Screen) -> None:
    """Print what a reader wants to know of the lines that commands in other terminals append to the file."""
    live = Live()
    with log.open(encoding="utf-8", errors="replace") as lines:
        lines.seek(0, os.SEEK_END)
        begun = ""
        while True:
            begun += lines.readline()
            if not begun.endswith("\n"):
                await asyncio.sleep(FOLLOW_SECONDS)
                continue
            if (shown := live.describe(begun)) is not None:
                screen.show(shown)
            begun = ""


@asynccontextmanager
async def running(
    programs: Mapping[str, Sequence[str]],
    directory: Path,
    logs: Mapping[str, Path],
    screen: Screen,
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run programs for as long as the block; all have ended after it.

    Args:
        programs: for each name, the module and its arguments.
        directory: where their ids are kept, for the next start to find what outlived us.
        logs: for some names, the file to which the program writes its log lines too.
        screen: where their lines are shown.
        pass_fds: open files that they share with us.

    Yields the tasks that watch them. One that ends means that its program has.

    """
    processes: list[Process] = []
    watches: list[asyncio.Task[None]] = []
    try:
        for name, module in programs.items():
            pid_file = directory / f"{name}.pid"
            end_leftover(pid_file, " ".join(module), signal.SIGTERM)
            processes.append(await launch("KILL", *module, pass_fds=pass_fds, log_file=logs.get(name)))
            pid_file.write_text(str(processes[-1].pid))
            watches.append(asyncio.create_task(watch(name, processes[-1], screen)))
        yield watches
    finally:
        await end(processes, watches)


async def end(processes: Sequence[Process], watches: Sequence[asyncio.Task[None]]) -> None:
    """Ask the programs to end, and kill those that take too long."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
        if watches:
            await asyncio.wait(watches, timeout=STOP_PATIENCE_SECONDS)
    await asyncio.gather(*watches, return_exceptions=True)
