"""A later release, made of a copy of this one by what docs/how-to/add-a-projected-column.md says."""

import shutil
from pathlib import Path

from shared.revision import REVISION
from tests.forked import ROOT

NEXT = f"{int(REVISION) + 1:04}"
MIGRATION = f'''"""Show the color."""

from alembic import op

revision = "{NEXT}"
down_revision = "{REVISION}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, unless the monolith did."""
    op.execute("ALTER TABLE project_collections ADD COLUMN IF NOT EXISTS color varchar")


def downgrade() -> None:
    """Leave it."""
'''
LINE = '    Column("color", legacy="color", json="string", is_new=True, is_audited=False),\n'
UPDATED_AT = '    Column("updated_at", legacy="updated_at", json="string", sql="timestamptz"),\n'
GRANT = "(research_context, created_at, updated_at)"
Edit = tuple[str, str, str]  # a file, what stands there once, and what is to stand there

FIRST: tuple[Edit, ...] = (
    ("shared/projection.py", UPDATED_AT, UPDATED_AT + LINE),
    ("shared/revision.py", f'REVISION = "{REVISION}"', f'REVISION = "{NEXT}"'),
    (
        "migrations/legacy_schema.sql",
        "    research_context text,\n    tags json",
        "    research_context text,\n    color character varying,\n    tags json",
    ),
    ("deploy/roles.sql", f"UPDATE {GRANT}", "UPDATE (research_context, created_at, updated_at, color)"),
    (
        "deploy/roles.sql",
        "INSERT (project_id, collection_id, research_context, created_at, updated_at)",
        "INSERT (project_id, collection_id, research_context, created_at, updated_at, color)",
    ),
)
SECOND: tuple[Edit, ...] = (
    ("shared/projection.py", ", is_audited=False),\n", "),\n"),
    (
        "shared/pair.py",
        '    "updated_at": "updated_at",\n',
        '    "updated_at": "updated_at",\n    "color": "color",\n',
    ),
    ("shared/pair.py", 'frozenset({"research_context"})', 'frozenset({"research_context", "color"})'),
    (
        "worker/audit/canary.py",
        "SELECT collection_id, project_id, description, is_active, created_at, updated_at\n",
        "SELECT collection_id, project_id, description, is_active, created_at, updated_at, color\n",
    ),
    (
        "worker/audit/canary.py",
        "SELECT collection_id, project_id, research_context, created_at, updated_at\n",
        "SELECT collection_id, project_id, research_context, created_at, updated_at, color\n",
    ),
    (
        "worker/audit/canary.py",
        "description, created_at, updated_at)",
        "description, created_at, updated_at, color)",
    ),
    (
        "worker/audit/canary.py",
        "'2001-02-03 04:05:06.789012Z', '2001-02-03 04:05:06.789012Z'\n",
        "'2001-02-03 04:05:06.789012Z', '2001-02-03 04:05:06.789012Z', 'blue'\n",
    ),
    (
        "worker/audit/canary.py",
        "        ('updated_at', '', true, 'text'),\n",
        "        ('updated_at', '', true, 'text'),\n        ('color', '', true, 'text'),\n",
    ),
    (
        "worker/audit/canary.py",
        "(collection_id, project_id, research_context, created_at, updated_at)",
        "(collection_id, project_id, research_context, created_at, updated_at, color)",
    ),
    (
        "worker/audit/canary.py",
        "updated_later * interval '1 microsecond'\n",
        "updated_later * interval '1 microsecond', CASE name WHEN 'color' THEN 'green' ELSE 'blue' END\n",
    ),
    (
        "worker/audit/canary.py",
        "        ('updated_at', '', 'text', 0, -1),\n",
        "        ('updated_at', '', 'text', 0, -1),\n        ('color', '', 'text', 0, 0),\n",
    ),
    (
        "worker/audit/canary.py",
        '    "canary updated_at": "mismatched",\n',
        '    "canary updated_at": "mismatched",\n    "canary color": "mismatched",\n',
    ),
    (
        "worker/audit/canary.py",
        "planned=16, compared=16, active_collections=12, home_rows=11,\n    missing=2, mismatched=4",
        "planned=17, compared=17, active_collections=13, home_rows=12,\n    missing=2, mismatched=5",
    ),
    (
        "worker/audit/canary.py",
        "planned=17, compared=17, active_collections=13, home_rows=12)",
        "planned=18, compared=18, active_collections=14, home_rows=13)",
    ),
)


def make(directory: Path) -> Path:
    """Copy the product and do to it what the first release does; return its root."""
    root = directory / "another-column"
    for name in ("api", "worker", "shared", "migrations", "deploy"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    (root / "migrations" / "versions" / f"{NEXT}_color.py").write_text(MIGRATION, encoding="utf-8")
    edit(root, FIRST)
    return root


def edit(root: Path, edits: tuple[Edit, ...]) -> None:
    """Make each of these changes, which must find its place."""
    for name, old, new in edits:
        path = root / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, (name, old)
        path.write_text(text.replace(old, new), encoding="utf-8")
