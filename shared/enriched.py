"""What users added to a row of `project_collections`: columns that no event of ours ever writes."""

# Json has no `=`, and what is in it may not even be valid jsonb; as text it shows whether it is empty.
EMPTY = r"^\s*(\[\s*\]|\{\s*\}|null)\s*$"
MAPPINGS = ("linked_project_question_ids", "linked_project_hypothesis_ids")
ENRICHABLE = ("tags", *MAPPINGS)


def holds_anything(column: str, row: str = "target") -> str:
    """Return whether the row's column holds more than an empty list, an empty object or null."""
    return f"coalesce(CAST({row}.{column} AS text) !~ '{EMPTY}', false)"
