"""What is said of an exception that nobody foresaw."""

from pathlib import Path
from traceback import extract_tb

MOST_PLACES = 4
THROUGH = "orderly.py"  # every exception comes by
ROOT = Path(__file__).resolve().parents[2]


def accident(error: Exception) -> str:
    """Return what happened and where; not the error's text, which may quote what users wrote, or a secret."""
    error = first_of(error)
    return f"This is a fault of ours: {type(error).__name__}{_places(error)}."


def first_of(error: Exception) -> Exception:
    """Return what happened first, where several things did at once."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _places(error: BaseException) -> str:
    ours = [
        f"{Path(frame.filename).relative_to(ROOT)}:{frame.lineno}"
        for frame in reversed(extract_tb(error.__traceback__))
        if _is_ours(Path(frame.filename))
    ]
    return f" at {', '.join(ours[:MOST_PLACES])}" if ours else ""


def _is_ours(file: Path) -> bool:
    is_code = file.is_relative_to(ROOT) and "site-packages" not in file.parts and file.is_file()
    return is_code and file.name != THROUGH
