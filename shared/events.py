"""The vocabulary of outbox events."""

from enum import StrEnum


class EventType(StrEnum):
    """What happened to the collection. The payload is its full state either way."""

    CREATED = "collection.created"
    UPDATED = "collection.updated"
    DELETED = "collection.deleted"


class Source(StrEnum):
    """Who appended the event; it decides the lane in which the event is claimed."""

    API = "api"
    REPAIR = "repair"
    BACKFILL = "backfill"
