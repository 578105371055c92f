"""Types of fields that models of several endpoints share."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from api.gate.echo import SURROGATES


def is_storable(text: str) -> bool:
    """Return whether PostgreSQL can store the text: no NUL, no lone surrogate."""
    return "\0" not in text and not SURROGATES.search(text)


def storable(text: str) -> str:
    """Accept the text when PostgreSQL can store it."""
    if not is_storable(text):
        error, message = "string_not_storable", "String should not contain NUL or lone surrogates"
        raise PydanticCustomError(error, message)
    return text


Text = Annotated[str, AfterValidator(storable)]
# ISO 8601 with +00:00, never Z, no microseconds when they are zero: what the legacy service sends.
Timestamp = Annotated[
    datetime,
    PlainSerializer(datetime.isoformat),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
