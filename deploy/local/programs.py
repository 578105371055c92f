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
from deploy.local.live import describe

ROOT = Path(__file__).parents[2]
SHOWN_LINES = 15
STOP_PATIENCE_SECONDS = 10
LONGEST_LINE_BYTES = 2**20


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


async def watch(name: str, process: Process) -> None:
    """Print what a reader wants to know of the output until the program ends.

    Raises:
        LocalError: it has ended; the message shows its last lines.

    """
    last_lines: deque[str] = deque(maxlen=SHOWN_LINES)
    while process.stdout is not None and (line := await process.stdout.readline()):
        text = line.decode(errors="replace").rstrip()
        last_lines.append(f"  {text}")
        if (shown := describe(text)) is not None:
            print(shown, flush=True)
    status = await process.wait()
    raise LocalError("\n".join((f"{name} ended with status {status}. Its last lines:", *last_lines)))


@asynccontextmanager
async def running(
    programs: Mapping[str, Sequence[str]],
    directory: Path,
    logs: Mapping[str, Path],
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run programs for as long as the block; all have ended after it.

    Args:
        programs: for each name, the module and its arguments.
        directory: where their ids are kept, for the next start to find what outlived us.
        logs: for some names, the file to which the program writes its log lines too.
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
            watches.append(asyncio.create_task(watch(name, processes[-1])))
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
