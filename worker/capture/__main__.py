"""The command `python -m worker.capture`."""

import sys
from functools import partial

from shared.process.late_imports import late_imports
from shared.process.orderly import orderly
from worker.capture.options import parse

if __name__ == "__main__":
    with orderly():
        options = parse(sys.argv[1:])
        with late_imports():
            from worker.command_line.run import run_command

            if options.action == "status":
                from worker.capture.show import execute
            else:
                from worker.capture.command import execute
        sys.exit(run_command("capture", partial(execute, options)))
