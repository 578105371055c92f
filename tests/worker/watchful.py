"""`python -m tests.worker.watchful`: a worker that names who holds a snapshot sooner than the product's."""

import sys

from worker import duties
from worker.process import main
from worker.vitals import snapshot_holders

if __name__ == "__main__":
    snapshot_holders.HELD_SECONDS = 0.3
    duties.TICK_SECONDS = 0.05
    sys.exit(main())
