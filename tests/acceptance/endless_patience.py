"""`python -m tests.acceptance.endless_patience MODULE …`: the product, but it waits for whatever it awaits.

Who gets to an end all the same did not wait.
"""

import runpy
import sys

from shared.redis import client as redis_client
from shared.redis import doorbell
from worker import drainer, duties, main

if __name__ == "__main__":
    for module in (doorbell, redis_client):
        vars(module)["REDIS_TIMEOUT_SECONDS"] = 3600
    main.COMPLETION_WAIT_SECONDS = drainer.BATCH_PATIENCE_SECONDS = duties.CHUNK_PATIENCE_SECONDS = 3600
    sys.argv.pop(0)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
