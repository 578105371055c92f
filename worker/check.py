"""`python -m worker --check`: a container's health check, which runs every half minute."""

import asyncio
import sys

from shared.redis.faults import REDIS_ERRORS
from shared.settings import Settings, SettingsError, load_settings
from worker.vitals.health import is_any_worker_alive


def main() -> int:
    """Print whether a worker of this host is alive, and return the exit status."""
    try:
        is_alive = asyncio.run(is_any_worker_alive(load_settings(Settings)))
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except REDIS_ERRORS as error:
        print(f"unknown: Redis does not answer ({type(error).__name__})", file=sys.stderr)
        return 1
    print("alive" if is_alive else "no worker of this host has polled Redis within the last seconds")
    return 0 if is_alive else 1
