"""`python -m deploy.local`: what `make run` runs."""

import sys

from deploy.local.options import parse
from shared.process.late_imports import late_imports

if __name__ == "__main__":
    options = parse(sys.argv[1:])
    with late_imports():
        from deploy.local.command import main
    sys.exit(main(options))
