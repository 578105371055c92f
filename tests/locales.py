"""A locale that sorts as people do, compiled for the tests where the system brings its sources."""

import shutil
import subprocess
from pathlib import Path

ENGLISH = "en_US.utf8"


def compile_english(directory: Path) -> bool:
    """Make en_US in a directory for LOCPATH; False where the system has not what it takes."""
    localedef = shutil.which("localedef")
    if localedef is None:
        return False
    subprocess.run(
        [localedef, "-i", "en_US", "-f", "UTF-8", str(directory / ENGLISH)], check=False, capture_output=True
    )
    return (directory / ENGLISH).is_dir()
