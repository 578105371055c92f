"""Whether a terminal showed what a page promised: line by line, but for what no two readers see alike."""

import re

# Each of these is the same as any other of its kind.
VARIES = {
    re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"): "<uuid>",
    re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d(:\d\d)?)?"): "<time>",
    re.compile(r"\b\d\d:\d\d:\d\d\b"): "<time of day>",
    re.compile(r"; \d+:\d\d\.$", re.MULTILINE): "; <duration>.",
    re.compile(r"\b\d+(\.\d+)? ms\b"): "<n> ms",
    re.compile(r'(?<="lag_ms":)[\d.]+'): "<n>",
    re.compile(r"\b\d+(\.\d+)?\s+(?=seconds|s ago)"): "<n> ",
    re.compile(r"\b(audit run|PostgreSQL's pid) \d+", re.IGNORECASE): r"\1 <n>",
    re.compile(r"^(Audit) \d+", re.MULTILINE): r"\1 <n>",
    re.compile(r"(127\.0\.0\.1):\d+"): r"\1:<port>",
    re.compile(r"-{3,}"): "---",  # psql's rule: shorter where a time ends in zeros
}
# A page may leave out a part of a line, or, on a line of its own, any number of lines.
OMITTED = "…"
ANY_LINES = "(?:.*\n)*?"


def comparable(text: str) -> str:
    """Return the lines that say something, with their white space and what varies made alike."""
    for varying, name in VARIES.items():
        text = varying.sub(name, text)
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line)


def pattern_of(promised: str) -> str:
    """Return the regular expression of the comparable outputs that keep the promise."""
    return "".join(_pattern_of_line(line) for line in comparable(promised).splitlines())


def _pattern_of_line(promised: str) -> str:
    if promised == OMITTED:
        return ANY_LINES
    return ".*".join(re.escape(part) for part in promised.split(OMITTED)) + "\n"


def is_kept(promised: str, shown: str) -> bool:
    """Say whether this is the whole output that was promised."""
    return re.fullmatch(pattern_of(promised), comparable(shown)) is not None


def is_kept_somewhere(promised: str, shown: str) -> bool:
    """Say whether the promised lines stand somewhere in the output, as in a log that goes on and on."""
    return re.search(f"^{pattern_of(promised)}", comparable(shown), re.MULTILINE) is not None
