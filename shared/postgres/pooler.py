"""Sessions through a pooler that lends one of the server's for a single transaction.

No setting of a session outlasts the transaction then: so each of ours begins with its settings, in the
message of its BEGIN, and no statement runs outside of one. See docs/decisions/0034.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
from asyncpg.exceptions import TargetServerAttributeNotMatched

from shared.postgres.address import Address
from shared.postgres.keepalive import keep_alive
from shared.postgres.sequences import read_sequences
from shared.settings import SettingsError

DECLARE = (
    "Set DATABASE_POOLER=transaction, or let DATABASE_URL lead to PostgreSQL itself."
    " docs/scaling.md says what a pooler needs."
)
# What PgBouncer says, both with SQLSTATE 08P01.
REFUSED_SETTINGS = "startup parameter"
SINGLE_STATEMENTS = "statement pooling"
FIX = "Let the tables' owner run `python -m worker.preflight --repair-sequences`, or this SQL:"
FIRST_WITH_TRANSACTION_TIMEOUT = 17
READ_ONLY = "SELECT WHERE current_setting('transaction_read_only')::boolean"
# Two tables of one name, of which the search path shows the first: what a role is shown must be what all are.
SHOWN_TWICE = """
    SELECT relname, string_agg(quote_ident(nspname), ' and ' ORDER BY nspname) AS schemas
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = ANY(current_schemas(false)) AND relname IN (
        'collections', 'project_collections', 'outbox_events', 'applied_versions', 'outbox_dead_letters',
        'backfill_runs', 'audit_runs', 'audit_findings', 'worker_processes'
    )
    GROUP BY relname HAVING count(*) > 1
"""
NO_ROW = "SELECT 0"
STANDBY = "DATABASE_URL leads to a standby, which takes no writes. Let it lead to the primary."


class PoolerError(SettingsError):
    """DATABASE_URL leads through a pooler under which what we promise would not hold; says what to set."""


class UnfitServerError(ConnectionError):
    """DATABASE_URL leads to where nothing may be written now; the next connection may find it cured."""

    def __init__(self, message: str, *, has_wrong_sequences: bool = False) -> None:
        super().__init__(message)
        self.has_wrong_sequences = has_wrong_sequences


class ReadOnlyServerError(UnfitServerError):
    """Its transactions are read-only unless they say otherwise, as ours do not."""


class PooledConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection whose statements all run in transactions, each with the settings of its class."""

    in_each_transaction: str

    async def execute(self, query: str, *arguments: Any, timeout: float | None = None) -> str:  # noqa: ANN401, ASYNC109 - as asyncpg has it
        """Carry out as asyncpg does; the message that begins a transaction brings its settings along."""
        if arguments or self.is_in_transaction():
            return str(await super().execute(query, *arguments, timeout=timeout))
        if query.startswith("BEGIN"):
            return await self._begin(query, timeout)
        async with self.transaction():
            return str(await super().execute(query, timeout=timeout))

    async def _begin(self, query: str, timeout: float | None) -> str:  # noqa: ASYNC109 - as asyncpg has it
        try:
            return str(await super().execute(query + self.in_each_transaction, timeout=timeout))
        except asyncpg.PostgresError:
            if self.is_in_transaction():  # nobody else knows that it began
                await super().execute("ROLLBACK")
            raise

    async def _execute(self, *statement: Any, **how: Any) -> Any:  # noqa: ANN401 - as asyncpg has it
        """Carry out what has arguments or rows: every such call of asyncpg's comes through here."""
        if self.is_in_transaction():
            return await super()._execute(*statement, **how)
        async with self.transaction():
            return await super()._execute(*statement, **how)


def pooled_connection(session: Mapping[str, str]) -> type[PooledConnection]:
    """Make the class of connections whose transactions have these settings of PostgreSQL.

    SET LOCAL, not set_config: a SELECT would take the snapshot of a transaction that is REPEATABLE READ.
    """
    local = "".join(f" SET LOCAL {name} = '{value}';" for name, value in session.items())
    return type("PooledConnection", (PooledConnection,), {"in_each_transaction": local})


async def connect(
    *where: Any,  # noqa: ANN401
    address: Address,
    session: Mapping[str, str],
    is_pooled: bool,
    checks_sequences: bool,
    checks_writable: bool,
    **how: Any,  # noqa: ANN401
) -> asyncpg.Connection:
    """Open a connection on which these settings are in force, and make sure that they are.

    Args:
        where: as `asyncpg.connect` takes it.
        address: the servers to try, and the options of their sockets.
        session: PostgreSQL's settings, their values written as PostgreSQL shows them.
        is_pooled: give them to each transaction, and keep no prepared statements; else to the session.
        checks_sequences: refuse a database whose sequences would draw what was drawn before.
        checks_writable: refuse a server that takes no writes.
        how: as `asyncpg.connect` takes it.

    Raises:
        PoolerError: they are not in force.
        UnfitServerError: it is a standby, or read-only, or its sequences are wrong; so is each of several.
        what `asyncpg.connect` raises.

    """
    if is_pooled:
        how |= {"statement_cache_size": 0, "connection_class": pooled_connection(session)}
    else:
        how["server_settings"] = how["server_settings"] | session
    try:
        connection = await _first_that_serves(address.hosts, *where, **how)
    except asyncpg.PostgresError as error:
        if REFUSED_SETTINGS in str(error):
            msg = f"DATABASE_URL leads to a pooler that refuses settings of sessions. {DECLARE}"
            raise PoolerError(msg) from None
        raise
    try:
        # asyncpg offers no other way to it.
        keep_alive(connection._transport.get_extra_info("socket"), address.keep_alive)  # noqa: SLF001
        if connection.get_server_version().major >= FIRST_WITH_TRANSACTION_TIMEOUT and not is_pooled:
            await connection.execute("SET transaction_timeout = 0")
        await require_in_force(connection, session)
        if checks_writable:
            await require_writable(connection)
        if checks_sequences:
            await require_sequences(connection)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _first_that_serves(
    hosts: Sequence[Mapping[str, Any]],
    *where: Any,  # noqa: ANN401
    timeout: float,  # noqa: ASYNC109 - as asyncpg has it
    **how: Any,  # noqa: ANN401
) -> asyncpg.Connection:
    """Connect to the first of these servers that answers and is what was asked for, as libpq does.

    asyncpg tries several as well, but gives the first, which may hang, the time of all.
    """
    last: Exception = UnfitServerError("DATABASE_URL names no host.")
    for host in hosts:
        try:
            return await asyncpg.connect(*where, **{**how, **host, "timeout": timeout / len(hosts)})
        except TargetServerAttributeNotMatched:
            last = UnfitServerError(STANDBY)
        except (OSError, asyncpg.CannotConnectNowError) as error:  # a TimeoutError is an OSError
            last = error
        except asyncpg.ClientConfigurationError:
            msg = "DATABASE_URL, or a PG… variable beside it, is not what asyncpg takes."
            raise PoolerError(msg) from None
    raise last


async def require_in_force(connection: asyncpg.Connection, session: Mapping[str, str]) -> None:
    """Ask the server, in one round trip, whether it heeds these settings.

    Raises:
        PoolerError: it does not; the message names those that are not in force.

    """
    try:
        if await _is_in_force(connection, session):
            return
        missing = [
            name for name, value in session.items() if not await _is_in_force(connection, {name: value})
        ]
    except asyncpg.PostgresError as error:
        if SINGLE_STATEMENTS in str(error):
            msg = "DATABASE_URL leads to a pooler that lends sessions for single statements. It must be for"
            raise PoolerError(f"{msg} transactions: pool_mode = transaction, in PgBouncer.") from None
        raise
    msg = "DATABASE_URL leads to a pooler that drops settings of sessions; not in force"
    raise PoolerError(f"{msg}: {', '.join(missing)}. {DECLARE}")


async def require_writable(connection: asyncpg.Connection) -> None:
    """Ask the server whether it would take a write, and where: one round trip where all is well.

    Raises:
        UnfitServerError: it would not, or not only where all write; the message says what to do.

    """
    # The rows are counted, as below.
    if await connection.execute(f"{READ_ONLY} OR EXISTS ({SHOWN_TWICE})") == NO_ROW:
        return
    for name, schemas in await connection.fetch(SHOWN_TWICE):
        msg = f"This role's search_path shows a table {name} in each of the schemas {schemas}."
        raise UnfitServerError(f"{msg} Let it lead to ours alone.")
    if await connection.execute(f"{READ_ONLY} AND pg_is_in_recovery()") != NO_ROW:
        raise UnfitServerError(STANDBY)
    msg = "PostgreSQL is read-only (default_transaction_read_only). Reset that, or wait until it is reset."
    raise ReadOnlyServerError(msg)


async def require_sequences(connection: asyncpg.Connection) -> None:
    """Look whether every id that we would draw now is new, and higher than those before it.

    Raises:
        UnfitServerError: it is not; the message holds the SQL that fixes it.

    """
    faults = [fault for sequence in await read_sequences(connection) for fault in sequence.faults]
    if faults:
        what, cures = "; ".join(fault.what for fault in faults), " ".join(fault.cure for fault in faults)
        raise UnfitServerError(f"{what}. {FIX} {cures}", has_wrong_sequences=True)


async def _is_in_force(connection: asyncpg.Connection, session: Mapping[str, str]) -> bool:
    # The rows are counted, not fetched: that prepares a statement, whose name another client may have taken.
    wanted = ", ".join(f"('{name}', '{value}')" for name, value in session.items())
    status = await connection.execute(f"""
        SELECT FROM (VALUES {wanted}) AS wanted (name, value)
        WHERE current_setting(name) IS DISTINCT FROM value
    """)  # noqa: S608 - our own constants
    return bool(status == NO_ROW)
