"""The script as an operator calls it, and the rows that there are before phase 1."""

import asyncio
import json
import subprocess
from collections.abc import Mapping
from typing import Any

from tests.forked import run
from tests.log_lines import hold_printed
from tests.processes import HANG_SECONDS

SCRIPT = "migrations/phase1_backfill_project_collections.py"

# As they are before phase 1: 30 active collections and 5 deleted ones; one row that agrees already, one
# that differs, one of a deleted collection, and one link to another project.
BEFORE_PHASE_1 = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT 'c' || lpad(number::text, 2, '0'), 'p' || 1 + number % 3, 'name', 'text', 'owner', number <= 30
    FROM generate_series(1, 35) AS number;
    INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
    SELECT project_id, collection_id, CASE collection_id WHEN 'c02' THEN 'another' ELSE description END,
        created_at, updated_at
    FROM collections WHERE collection_id IN ('c01', 'c02', 'c31');
    INSERT INTO project_collections (project_id, collection_id)
    SELECT CASE project_id WHEN 'p1' THEN 'p2' ELSE 'p1' END, collection_id
    FROM collections WHERE collection_id = 'c03';
"""


async def call(env: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run the script to its end; its stderr holds JSON log lines and sentences."""
    done = await asyncio.to_thread(run, [SCRIPT, *options], env, timeout=HANG_SECONDS)
    hold_printed(done.stderr)
    return done


def the_json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the one line on stdout."""
    (line,) = done.stdout.splitlines()
    result: dict[str, Any] = json.loads(line)
    return result


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Return what stderr says to people."""
    return "\n".join(line for line in done.stderr.splitlines() if not line.startswith("{"))
