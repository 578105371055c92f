"""The command `python -m worker.audit`."""

import sys
from functools import partial

from shared.process.late_imports import late_imports
from shared.process.orderly import orderly
from worker.audit.options import parse

if __name__ == "__main__":
    with orderly():
        options = parse(sys.argv[1:])
        with late_imports():
            if options.action == "findings":
                from worker.audit.recorded import execute
            else:
                from worker.audit.command import execute
            from worker.command_line.run import run_command
        sys.exit(run_command("audit", partial(execute, options)))
