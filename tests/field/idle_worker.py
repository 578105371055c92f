"""A broken twin of the worker, started like it: it acknowledges events and applies none of them."""

import runpy
from collections.abc import Sequence

import asyncpg

import worker.relay.settle


async def apply_nothing(_connection: asyncpg.Connection, event_ids: Sequence[int]) -> set[int]:
    return set(event_ids)


if __name__ == "__main__":
    vars(worker.relay.settle)["apply"] = apply_nothing
    runpy.run_module("worker", run_name="__main__", alter_sys=True)
