"""The phase of the cutover, out of its row, and what was compared and counted since it began."""

from dataclasses import replace

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.phase.phases import Phase
from shared.verdict.facts import FALL_BACK, Cutover, Losses, Shadow, ShadowFinding

MOST_FINDINGS = 20

# One row at most: by migration_phase_pkey and phase_turns_pkey.
PHASE = text("""
    SELECT migration_phase.phase, migration_phase.epoch,
        extract(epoch FROM migration_phase.since)::float8 AS since, migration_phase.actor, falls_back,
        kind, reason
    FROM migration_phase LEFT JOIN phase_turns ON phase_turns.epoch = migration_phase.epoch
    WHERE singleton
""")
# Served by shadow_counts_pkey: a row for each minute of the epoch in which anything was compared.
COUNTS = text("""
    SELECT coalesce(sum(matched), 0)::bigint, coalesce(sum(mismatched), 0)::bigint,
        coalesce(sum(pending), 0)::bigint, coalesce(sum(lettered), 0)::bigint,
        coalesce(sum(dropped), 0)::bigint, coalesce(sum(failed), 0)::bigint,
        coalesce(sum(legacy_seconds), 0), coalesce(sum(target_seconds), 0),
        extract(epoch FROM max(last_at))::float8
    FROM shadow_counts WHERE epoch = :epoch
""")
# Served by shadow_findings_by_time, read backwards.
FINDINGS = text("""
    SELECT project_id, collection_id, kind, extract(epoch FROM found_at)::float8 FROM shadow_findings
    WHERE epoch >= :epoch ORDER BY found_at DESC LIMIT :most
""")
# Served by audit_runs_by_end, read backwards to the phase's begin, or the first that found anything.
DRIFT = text("""
    SELECT extract(epoch FROM finished_at)::float8 FROM audit_runs
    WHERE finished_at >= (SELECT since FROM migration_phase WHERE singleton)
        AND verdict IN ('drift', 'repaired')
    ORDER BY finished_at DESC LIMIT 1
""")
# One row at most: by going_back_losses_pkey.
LOSSES = text("""
    SELECT extract(epoch FROM counted_at)::float8, further_links, tags, mappings, contexts, without_home
    FROM going_back_losses WHERE singleton
""")


async def cutover(connection: AsyncConnection) -> Cutover | None:
    """Return the phase and what is known of it; None where its row is gone, so that reads are not moved."""
    row = (await connection.execute(PHASE)).one_or_none()
    if row is None:
        return None
    counts = (await connection.execute(COUNTS, {"epoch": row.epoch})).one()
    # What made reads fall back was found in the epoch before.
    since_epoch = row.epoch - (row.kind == FALL_BACK)
    found = await connection.execute(FINDINGS, {"epoch": since_epoch, "most": MOST_FINDINGS})
    lost = (await connection.execute(LOSSES)).one_or_none()
    return Cutover(
        Phase(row.phase),
        row.epoch,
        row.since,
        row.actor,
        row.falls_back,
        replace(Shadow(*counts), findings=[ShadowFinding(*finding) for finding in found]),
        None if lost is None else Losses(*lost),
        row.kind,
        row.reason,
        (await connection.execute(DRIFT)).scalar() if row.phase == Phase.VERIFIED else None,
    )
