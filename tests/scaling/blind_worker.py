"""A broken twin of the worker, started like it: its guard lets through older versions too."""

import runpy

import worker.relay.apply
from tests.twins.replacing import replaced

if __name__ == "__main__":
    vars(worker.relay.apply)["GUARD"] = replaced(
        worker.relay.apply.GUARD, "WHERE guard.version < excluded.version", ""
    )
    runpy.run_module("worker", run_name="__main__", alter_sys=True)
