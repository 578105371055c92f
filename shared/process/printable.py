"""What others wrote, made fit for a terminal: it steers nothing there, and passes for no line of ours."""

from unicodedata import category

SPACE = "Zs"  # of Unicode's categories; what separates lines and paragraphs has others
UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"


def printable(text: str, longest: int | None = None) -> str:
    """Return one line of what can be seen, cut to `longest` characters.

    Spaces of any kind are spaces. Whatever else has no shape of its own is replaced: control characters, and
    with them escape sequences and line ends, marks that turn the direction of writing, halves of surrogate
    pairs.
    """
    if longest is not None and len(text) > longest:
        text = f"{text[: max(longest - 1, 0)]}…"
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(letter: str) -> str:
    if letter.isprintable():
        return letter
    return " " if letter == "\t" or category(letter) == SPACE else UNPRINTABLE
