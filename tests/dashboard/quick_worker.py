"""`python -m tests.dashboard.quick_worker`: a worker whose heart beats every second; nobody waits for it."""

import runpy
from unittest import mock

if __name__ == "__main__":
    with mock.patch("worker.duties.BEAT_SECONDS", 1):
        runpy.run_module("worker", run_name="__main__", alter_sys=True)
