"""The vocabulary of outbox events."""

from enum import StrEnum

# The version of the payload and of what it means, see docs/versions.md. One that says none is of version 1.
PAYLOAD_VERSION = 1  # of the events that this release appends
NEWEST_KNOWN_VERSION = 1  # that its worker can apply; it leaves later ones to a later worker
# The version of a guard where none was applied yet: every event is newer.
NO_EVENT = 0


class EventType(StrEnum):
    """What happened to the collection. The payload is its full state either way."""

    CREATED = "collection.created"
    UPDATED = "collection.updated"
    DELETED = "collection.deleted"


class Source(StrEnum):
    """Who appended the event; it decides the lane in which the event is claimed."""

    API = "api"
    CAPTURE = "capture"  # the database itself, for a writer that appended nothing
    REPAIR = "repair"
    BACKFILL = "backfill"
