"""The command `python -m worker.backfill`."""

import sys
from functools import partial

from shared.process.late_imports import late_imports
from shared.process.orderly import orderly
from worker.backfill.options import parse

if __name__ == "__main__":
    with orderly():
        options = parse(sys.argv[1:])
        with late_imports():
            from worker.command_line.run import run_command

            if options.action in {"start", "resume", "dry_run"}:
                from worker.backfill.command import execute
            else:
                from worker.backfill.control import execute
        sys.exit(run_command("backfill", partial(execute, options)))
