"""arq with more jobs at once and a shorter poll than by default."""

from benchmarks.peers.systems import arq
from benchmarks.peers.systems.arq import install, writing
from benchmarks.peers.systems.system import Applied

__all__ = ["SETTINGS", "install", "work", "writing"]

SETTINGS = {"max_jobs": 50, "queue_read_limit": 500, "poll_delay": 0.01}


async def work(url: str, applied: Applied) -> None:
    await arq.work(url, applied, **SETTINGS)
