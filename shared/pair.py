"""What the audit compares of a pair, in its own words.

The projection said a second time, on purpose: what the copier forgets or confuses in `shared/projection.py`
must not be forgotten or confused here. Neither is made from the other; a test holds them together.
"""

# The target's column, and what it must equal: an expression over a row of `collections`.
COMPARED = {
    "research_context": "description",
    "created_at": "created_at",
    "updated_at": "updated_at",
}
TEXTS = frozenset({"research_context"})

COLUMNS = tuple(COMPARED)
NAMES = ", ".join(COLUMNS)
IN_WORDS = f"{', '.join(COLUMNS[:-1])} and {COLUMNS[-1]}"
EXPECTED = ", ".join(f"{expression} AS {name}" for name, expression in COMPARED.items())


def differs(name: str, expected: str = "legacy", found: str = "target") -> str:
    """Return whether the column differs between two rows that have it under its name in the target.

    COLLATE "C": no collation may call two texts equal whose bytes differ.
    """
    collate = ' COLLATE "C"' if name in TEXTS else ""
    return f"{expected}.{name}{collate} IS DISTINCT FROM {found}.{name}{collate}"


def shown(row: str) -> str:
    """Return the compared columns of such a row as an object."""
    pairs = ", ".join(f"'{name}', {row}.{name}" for name in COLUMNS)
    return f"jsonb_build_object({pairs})"


DIFFER = " OR ".join(differs(name) for name in COLUMNS)
