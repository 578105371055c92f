"""What a request is called, in its answer and in each log line about it: by an id, and by its trace.

The id is the client's own where it is short and plain: one name leads through client, gateway and log.
It identifies a request and proves nothing.
"""

import random
import re
from collections.abc import Mapping
from contextvars import ContextVar

from starlette.types import Scope

from api.gate.tracing import only_header
from shared.traceparent import current_trace_id

HEADER = "X-Request-ID"
TRACE_HEADER = "X-Trace-ID"
WELL_FORMED = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
SENT = HEADER.lower().encode()

# Of the request that this code works on, while the middleware passes it on.
NAMES: ContextVar[Mapping[str, str] | None] = ContextVar("NAMES", default=None)


def identify(scope: Scope) -> dict[str, str]:
    """Return its `request_id`, drawn unless it brings one that is well-formed, and its `trace_id`, if any."""
    sent = only_header(scope, SENT)
    request_id = sent if sent and WELL_FORMED.fullmatch(sent) else drawn()
    return {"request_id": request_id, **current_trace()}


def drawn() -> str:
    return f"{random.getrandbits(128):032x}"


def identification() -> Mapping[str, str]:
    """Return the names of the request that this code works on, as fields of a log line.

    In a host's app without our middleware that is its trace at most.
    """
    names = NAMES.get()
    return current_trace() if names is None else names


def current_trace() -> dict[str, str]:
    trace_id = current_trace_id()
    return {} if trace_id is None else {"trace_id": trace_id}
