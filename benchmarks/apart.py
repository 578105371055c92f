"""Running a program from a small process, for what it takes.

    python -m benchmarks.apart FILE PROGRAM ARGUMENT...

A process that forks from a large one has, for Linux, held as much memory as that: so the measuring process,
or a test's, must not be the one that starts what is measured. FILE gets [CPU seconds, ru_maxrss] as JSON.
"""

import json
import os
import sys
from pathlib import Path


def main() -> int:
    _, report, *program = sys.argv
    child = os.posix_spawn(program[0], program, os.environ)
    _, status, usage = os.wait4(child, 0)
    Path(report).write_text(json.dumps([usage.ru_utime + usage.ru_stime, usage.ru_maxrss]), encoding="utf-8")
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
