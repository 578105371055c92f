"""What `python -m deploy.local` does, and how it ends."""

import argparse
import asyncio
import sys

from deploy.local.errors import LocalError
from deploy.local.programs import ROOT
from deploy.local.run import run
from shared.process.orderly import WRONG_USAGE
from shared.settings import SettingsError


def main(arguments: argparse.Namespace) -> int:
    data = arguments.data or ROOT / ".local"
    try:
        asyncio.run(run(data.absolute(), arguments.port, with_worker=not arguments.no_worker))
    except SettingsError as error:
        print(error, file=sys.stderr)
        return WRONG_USAGE
    except LocalError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0
