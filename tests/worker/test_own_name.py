"""Names of processes: unique, also where every process is number 1 of the same host."""

import platform
import re
import subprocess
import sys

import pytest

from tests.forked import ROOT

AS_PROCESS_1 = """
import os
os.getpid = lambda: 1
from shared.settings import Settings
from worker.vitals.health import own_health_key
from worker.vitals.own_name import own_name
assert own_name() == own_name()
settings = Settings(database_url="postgresql://u:secret@host/db", redis_url="redis://none")
print(own_name(), own_health_key(settings))
"""


@pytest.mark.wide
def test_containers_that_share_a_host_s_name_have_names_of_their_own() -> None:
    names = [
        subprocess.run(
            [sys.executable, "-c", AS_PROCESS_1], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    for name, key in names:
        assert name.startswith(f"{platform.node()}:1:")
        assert re.fullmatch(rf"collection_sync:worker:[0-9a-f]{{16}}:{name}", key)
    assert len({name for name, _ in names}) == 2
