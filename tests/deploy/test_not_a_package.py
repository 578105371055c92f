import subprocess
import sys

import pytest

from deploy.not_a_package import WHY
from tests.forked import ROOT


@pytest.mark.parametrize("options", [[], ["--editable"]], ids=["installed", "editable"])
def test_to_install_it_is_refused_with_one_line_that_says_how_it_is_run(options: list[str]) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", *options, str(ROOT)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "[1 lines of output]" in done.stderr
    assert WHY in done.stderr
