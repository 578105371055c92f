"""A function for the lane of an event, and lists that look for links only where there are any."""

import sqlalchemy as sa
from alembic import op

from shared.phase.view import function
from shared.place import PLACE, Place

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# PostgreSQL keeps the expressions of generated columns and of CHECK constraints as texts, and parses and
# plans each anew for every statement that inserts: that was more than half of what an event costs a write.
# A call is a short text, and a function in PL/pgSQL is parsed once in a session. A version that is none has
# no lane, which NOT NULL refuses. A traceparent is asked for its shape without a regular expression, which
# took half as long as the rest of the event. All roles may call it, for who writes events must.
BY_FUNCTION = "outbox_lane(source, schema_version, traceparent)"
ARGUMENTS = "(character varying, smallint, text)"
FUNCTION = """
CREATE FUNCTION outbox_lane(source character varying, schema_version smallint, traceparent text)
    RETURNS smallint
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $lane$
BEGIN
    IF NOT starts_with(traceparent, '00-')
        OR translate(traceparent, '123456789abcdef', '000000000000000')
            <> '00-00000000000000000000000000000000-0000000000000000-00'
    THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', TABLE = 'outbox_events',
            CONSTRAINT = 'outbox_events_traceparent_of_w3c',
            MESSAGE = 'the traceparent of an event is not as W3C Trace Context writes it';
    END IF;
    RETURN CASE WHEN schema_version >= 1 THEN
        CASE source
            WHEN 'api' THEN 1 - schema_version
            WHEN 'capture' THEN 1 - schema_version
            WHEN 'repair' THEN 2 * schema_version - 1
            ELSE 2 * schema_version
        END
    END;
END
$lane$
"""
BY_CASE = """CASE source
    WHEN 'api' THEN 1 - schema_version
    WHEN 'capture' THEN 1 - schema_version
    WHEN 'repair' THEN 2 * schema_version - 1
    ELSE 2 * schema_version
END"""
CHECKS = {
    "outbox_events_attempts_counted": "attempts IS NOT NULL AND attempts >= 0",
    "outbox_events_schema_version_counted": "schema_version IS NOT NULL AND schema_version >= 1",
    "outbox_events_traceparent_of_w3c": "traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'",
}


def replace_lane(expression: str) -> None:
    """Make the column anew, and the index that orders claims by it: this rewrites the pending events."""
    op.drop_column("outbox_events", "lane")  # and its index
    op.add_column(
        "outbox_events",
        sa.Column(
            "lane",
            sa.SmallInteger(),
            sa.Computed(expression, persisted=True),
            nullable=False,
            comment="Claimed in this order: 0 live, 1 repair, 2 backfill; of version v 1-v, 2v-1 and 2v.",
        ),
    )
    op.create_index("outbox_events_claim_order", "outbox_events", ["lane", "id"])


def upgrade() -> None:
    """Make the column anew by the function, which refuses what the constraints refused; then the lists'.

    Pending events are rewritten under a lock that writers wait for: run it while few are pending.
    Rights on the column go with it: run deploy/roles.sql again.
    """
    op.get_bind().exec_driver_sql(FUNCTION)
    op.execute(f"GRANT EXECUTE ON FUNCTION outbox_lane{ARGUMENTS} TO PUBLIC")
    for name in CHECKS:
        op.drop_constraint(name, "outbox_events")
    replace_lane(BY_FUNCTION)
    place = Place(*op.get_bind().execute(sa.text(PLACE)).one())
    op.get_bind().exec_driver_sql(function(place))


def downgrade() -> None:
    """Make the column anew by its expression, and the constraints; revision 0011 makes the same lists."""
    replace_lane(BY_CASE)
    for name, condition in CHECKS.items():
        op.create_check_constraint(
            name, "outbox_events", condition, postgresql_not_valid=name.endswith("_of_w3c")
        )
    op.execute(f"DROP FUNCTION outbox_lane{ARGUMENTS}")
