"""A broken twin of the audit, started like it: of the real tables it counts no difference."""

import runpy
from dataclasses import replace

import asyncpg

import worker.audit.run
from worker.audit.comparison import Slice, Tally, compare


async def compare_blindly(connection: asyncpg.Connection, scope: Slice) -> Tally:
    return replace(await compare(connection, scope), missing=0, mismatched=0, orphaned=0)


if __name__ == "__main__":
    vars(worker.audit.run)["compare"] = compare_blindly
    runpy.run_module("worker.audit", run_name="__main__", alter_sys=True)
