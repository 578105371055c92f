"""A monolith as the adopting one is: FastAPI, a synchronous SQLAlchemy `Session`, psycopg.

Its two link endpoints, a description and a deletion write `collections` by themselves. Three ways to let each
write reach `project_collections`, from none of its lines changed to its endpoints replaced:

1. `plain_monolith` as it stands, with `python -m worker.capture install --mode append`.
2. `append_for_each_change`: one listener on its sessions, which appends the event by hand.
3. `monolith_with_our_router`: the collections endpoints are ours, mounted in its application.

Its list asks the view `visible_collections`, and no line of it changes when reads are moved, or back.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import JSON, DateTime, Text, event, func, inspect, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, UOWTransaction, mapped_column, sessionmaker

from api.context import collection_sync
from api.routes import router
from shared.events import EventType
from shared.outbox import append_event_sync
from shared.settings import Settings


class Base(DeclarativeBase):
    """The monolith's models."""


class Collection(Base):
    """The legacy row, as far as this application uses it."""

    __tablename__ = "collections"

    collection_id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    collection_name: Mapped[str]
    description: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[str]
    is_active: Mapped[bool | None]
    linked_hypothesis_ids: Mapped[list[str] | None] = mapped_column(JSON)
    updated_at: Mapped[Any] = mapped_column(DateTime(timezone=True), onupdate=func.now())


class VisibleCollection(Base):
    """A collection in a project: at home there, or linked to it once reads are moved. Never written."""

    __tablename__ = "visible_collections"

    project_id: Mapped[str] = mapped_column(primary_key=True)
    collection_id: Mapped[str] = mapped_column(primary_key=True)
    collection_name: Mapped[str]
    research_context: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[Any] = mapped_column(DateTime(timezone=True))


def plain_monolith(sessions: sessionmaker[Session]) -> FastAPI:
    """Return the application as it always was; it knows nothing of any migration."""
    app = FastAPI()

    def session() -> Iterator[Session]:
        with sessions.begin() as opened:
            yield opened

    Opened = Annotated[Session, Depends(session, scope="function")]  # noqa: N806 - a type

    @app.get("/api/projects/{project_id}/collections")
    def list_of(opened: Opened, project_id: str) -> list[dict[str, str | None]]:
        one = VisibleCollection
        listed = select(one).where(one.project_id == project_id).order_by(one.created_at, one.collection_id)
        return [
            {"id": row.collection_id, "name": row.collection_name, "context": row.research_context}
            for row in opened.scalars(listed)
        ]

    @app.post("/api/collections/{collection_id}/research/link")
    def link(opened: Opened, collection_id: str, hypothesis_id: str) -> None:
        collection = active(opened, collection_id)
        collection.linked_hypothesis_ids = [*(collection.linked_hypothesis_ids or []), hypothesis_id]

    @app.post("/api/collections/{collection_id}/research/unlink")
    def unlink(opened: Opened, collection_id: str, hypothesis_id: str) -> None:
        collection = active(opened, collection_id)
        kept = [one for one in collection.linked_hypothesis_ids or [] if one != hypothesis_id]
        collection.linked_hypothesis_ids = kept

    @app.put("/api/collections/{collection_id}/context")
    def describe(opened: Opened, collection_id: str, text: str) -> None:
        active(opened, collection_id).description = text

    @app.delete("/api/collections/{collection_id}")
    def delete(opened: Opened, collection_id: str) -> None:
        active(opened, collection_id).is_active = False

    return app


def active(session: Session, collection_id: str) -> Collection:
    """Return the collection, its row locked as an UPDATE locks it; 404 where there is no active one."""
    collection = session.get(Collection, collection_id, with_for_update={"key_share": True})
    if collection is None or not collection.is_active:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return collection


def append_for_each_change(sessions: sessionmaker[Session]) -> None:
    """Append an event for each collection that a session of these has written, before it commits.

    What is written past the unit of work, `session.execute(update(Collection))` or SQL, is not seen here:
    call `append_event_sync` after it, or let the database capture it.
    """

    @event.listens_for(sessions, "after_flush")
    def note(session: Session, _: UOWTransaction) -> None:
        written = session.info.setdefault("written", {})
        for one in session.new:
            if isinstance(one, Collection):
                written[one.collection_id] = EventType.CREATED
        for one in session.dirty:
            if isinstance(one, Collection) and session.is_modified(one):
                is_deleted = inspect(one).attrs.is_active.value is not True
                written[one.collection_id] = EventType.DELETED if is_deleted else EventType.UPDATED

    @event.listens_for(sessions, "before_commit")
    def append(session: Session) -> None:
        session.flush()
        for collection_id, event_type in session.info.pop("written", {}).items():
            append_event_sync(session, collection_id, event_type)

    @event.listens_for(sessions, "after_rollback")
    def forget(session: Session) -> None:
        session.info.pop("written", None)


def monolith_with_our_router(sessions: sessionmaker[Session], settings: Settings) -> FastAPI:
    """Return the same application, in which the collections endpoints are ours; the others append."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with collection_sync(app, settings):
            yield

    append_for_each_change(sessions)
    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    app.mount("", plain_monolith(sessions))
    return app
