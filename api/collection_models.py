"""Collections in requests and answers, exactly as the legacy service's clients know them.

The order of fields is the order of keys. Unknown keys of a request are ignored.
"""

from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)
from pydantic.config import JsonDict

from api.field_types import Text, is_storable, storable
from shared.stored import iso_of

DEFAULT_PURPOSE = "general"
MOST_WRONG_ITEMS = 100


def few_wrong(items: object) -> object:
    """Cut a list behind its hundredth wrong item, so that no answer names half a million of them."""
    if not isinstance(items, list):
        return items
    wrong = (index for index, item in enumerate(items) if not (isinstance(item, str) and is_storable(item)))
    last = next(islice(wrong, MOST_WRONG_ITEMS - 1, None), len(items))
    return items[: last + 1]


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(storable)]
Description = Annotated[str, Field(max_length=1000), AfterValidator(storable)]
Color = Annotated[str, Field(pattern="^#[0-9A-Fa-f]{6}$"), AfterValidator(storable)]
Icon = Annotated[str, Field(max_length=50), AfterValidator(storable)]
Texts = Annotated[list[Text], BeforeValidator(few_wrong)]

EXAMPLE_REQUEST: JsonDict = {
    "collection_name": "GLP-1 agonists",
    "description": "Semaglutide and related trials",
    "color": "#10B981",
    "icon": "beaker",
    "linked_hypothesis_ids": ["e1111111-0000-4000-8000-000000000001"],
    "linked_question_ids": [],
    "collection_purpose": "hypothesis_support",
    "auto_update": True,
}


class CollectionFields(BaseModel):
    """The fields of a write, in the order in which an answer names those that are wrong.

    Every field may be left out; null says the same as absent.
    """

    collection_name: Name | None = None
    description: Description | None = None
    color: Color | None = None
    icon: Icon | None = None
    linked_hypothesis_ids: Texts | None = None
    linked_question_ids: Texts | None = None
    collection_purpose: Text | None = None
    auto_update: bool | None = None


class NewCollection(CollectionFields):
    """A collection to create."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_REQUEST]})

    collection_name: Name  # the one that must be there; it keeps its place

    def values(self) -> dict[str, Any]:
        return self.model_dump() | {
            "linked_hypothesis_ids": self.linked_hypothesis_ids or [],
            "linked_question_ids": self.linked_question_ids or [],
            "collection_purpose": self.collection_purpose or DEFAULT_PURPOSE,
            "auto_update": bool(self.auto_update),
        }


class CollectionChanges(CollectionFields):
    """What to change. A field that is null or absent keeps its value, so none can be set to null."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"collection_name": "GLP-1 receptor agonists", "color": "#3B82F6"}]}
    )

    def values(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


# Other writers fill these columns too: whatever is in them, a list can be read and a write answered.
StoredTimestamp = Annotated[
    str,
    BeforeValidator(iso_of),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
# Whatever JSON others stored is shown, as far as it can be.
LinkedIds = Annotated[Any, WithJsonSchema({"type": "array", "items": {"type": "string"}})]

EXAMPLE_CREATED: JsonDict = {
    "collection_id": "c1111111-0000-4000-8000-000000000001",
    "collection_name": "GLP-1 agonists",
    "description": "Semaglutide and related trials",
    "created_by": "11111111-1111-4111-8111-111111111111",
    "created_at": "2025-10-02T10:11:12.345678+00:00",
    "color": "#10B981",
    "icon": "beaker",
    "article_count": 0,
}
EXAMPLE_UPDATED: JsonDict = {
    "collection_id": "c1111111-0000-4000-8000-000000000001",
    "collection_name": "GLP-1 receptor agonists",
    "description": "Semaglutide and related trials",
    "created_by": "11111111-1111-4111-8111-111111111111",
    "created_at": "2025-10-02T10:11:12.345678+00:00",
    "updated_at": "2025-10-03T08:00:00+00:00",
    "color": "#3B82F6",
    "icon": "beaker",
    "sort_order": 0,
}
EXAMPLE_LISTED: JsonDict = EXAMPLE_UPDATED | {
    "article_count": 2,
    "linked_hypothesis_ids": ["e1111111-0000-4000-8000-000000000001"],
    "linked_question_ids": [],
    "collection_purpose": "hypothesis_support",
    "auto_update": True,
}


class CreatedCollection(BaseModel):
    """A collection as the answer to its creation."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [EXAMPLE_CREATED]})

    collection_id: str
    collection_name: str
    description: str | None
    created_by: str
    created_at: StoredTimestamp | None
    color: str | None
    icon: str | None
    article_count: int = 0


class UpdatedCollection(BaseModel):
    """A collection as the answer to a change."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [EXAMPLE_UPDATED]})

    collection_id: str
    collection_name: str
    description: str | None
    created_by: str
    created_at: StoredTimestamp | None
    updated_at: StoredTimestamp | None
    color: str | None
    icon: str | None
    sort_order: int | None


class ListedCollection(UpdatedCollection):  # which documents what api/listed_items.py makes
    """A collection as the list shows it."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [EXAMPLE_LISTED]})

    article_count: int
    linked_hypothesis_ids: LinkedIds
    linked_question_ids: LinkedIds
    collection_purpose: str
    auto_update: bool


class DeletedCollection(BaseModel):
    """The answer to a deletion."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"message": "Collection deleted successfully"}]}
    )

    message: Literal["Collection deleted successfully"] = "Collection deleted successfully"
