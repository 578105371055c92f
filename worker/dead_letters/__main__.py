"""The command `python -m worker.dead_letters`."""

import sys
from functools import partial

from shared.process.late_imports import late_imports
from shared.process.orderly import orderly
from worker.dead_letters.options import parse

if __name__ == "__main__":
    with orderly():
        options = parse(sys.argv[1:])
        with late_imports():
            from worker.command_line.run import run_command

            if options.action in {"list", "show"}:
                from worker.dead_letters.show import execute
            else:
                from worker.dead_letters.closing import execute
        sys.exit(run_command("dead_letters", partial(execute, options)))
