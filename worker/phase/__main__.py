"""The command `python -m worker.phase`."""

import sys
from functools import partial

from shared.process.late_imports import late_imports
from shared.process.orderly import orderly
from worker.phase.options import parse

if __name__ == "__main__":
    with orderly():
        options = parse(sys.argv[1:])
        with late_imports():
            from shared.settings import TurnSettings
            from worker.command_line.run import run_command

            if options.action == "status":
                from worker.phase.show import execute
            elif options.action == "report":
                from worker.phase.report import execute
            else:
                from worker.phase.command import execute
        sys.exit(run_command("phase", partial(execute, options), TurnSettings))
