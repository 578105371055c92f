"""What the log says: every line that a process of ours may write, with its fields, units and level.

Dashboards and alerts are drawn from these lines, so they are an interface. The tables of `docs/logs.md` are
made from this contract (`python -m deploy.docs`), and tests hold every line that is written against it.
"""

import re
from collections.abc import Mapping
from typing import Any

from shared.logs.api_events import API_EVENTS
from shared.logs.declaring import COMMON, LOG_VERSION, LogEvent
from shared.logs.process_events import PROCESS_EVENTS
from shared.logs.run_events import RUN_EVENTS
from shared.logs.worker_events import WORKER_EVENTS

CONTRACT: Mapping[str, LogEvent] = {
    event.name: event for event in (*WORKER_EVENTS, *API_EVENTS, *RUN_EVENTS, *PROCESS_EVENTS)
}
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


def problems(line: Mapping[str, Any]) -> list[str]:
    """Return in which ways a line breaks the contract; an empty list when it keeps it."""
    missing = [f"no field {name}" for name in COMMON if name not in line]
    if missing:
        return missing
    found = [f"{name} is {line[name]!r}" for name, field in COMMON.items() if not field.accepts(line[name])]
    if line["schema_version"] != LOG_VERSION:
        found.append(f"schema_version is {line['schema_version']}, not {LOG_VERSION}")
    if not TIMESTAMP.fullmatch(str(line["timestamp"])):
        found.append(f"timestamp is {line['timestamp']!r}")
    event = CONTRACT.get(line["event"])
    return [*found, f"unknown event {line['event']!r}"] if event is None else found + event.problems(line)
