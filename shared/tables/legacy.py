"""The tables that were there before us, as far as we use them. We never alter them.

The full definitions stand in `migrations/legacy_schema.sql`. The preflight looks for every table and column
that stands here, those included that only plain SQL names.
"""

from sqlalchemy import JSON, Boolean, Column, DateTime, Integer, MetaData, String, Table, Text

legacy_metadata = MetaData()

users = Table(
    "users",
    legacy_metadata,
    Column("user_id", String, primary_key=True),
    Column("email", String, nullable=False),
)

projects = Table(
    "projects",
    legacy_metadata,
    Column("project_id", String, primary_key=True),
    Column("owner_user_id", String, nullable=False),
)

project_collaborators = Table(
    "project_collaborators",
    legacy_metadata,
    Column("id", Integer, primary_key=True),
    Column("project_id", String, nullable=False),
    Column("user_id", String, nullable=False),
    Column("is_active", Boolean),
)

collections = Table(
    "collections",
    legacy_metadata,
    Column("collection_id", String, primary_key=True),
    Column("project_id", String, nullable=False),
    Column("collection_name", String, nullable=False),
    Column("description", Text),
    Column("created_by", String, nullable=False),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    Column("is_active", Boolean),
    Column("color", String),
    Column("icon", String),
    Column("sort_order", Integer),
    Column("linked_hypothesis_ids", JSON),
    Column("linked_question_ids", JSON),
    Column("collection_purpose", String),
    Column("auto_update", Boolean),
)

article_collections = Table(
    "article_collections",
    legacy_metadata,
    Column("id", Integer, primary_key=True),
    Column("collection_id", String, nullable=False),
    Column("article_pmid", String),
)

activity_logs = Table(
    "activity_logs",
    legacy_metadata,
    Column("activity_id", String, primary_key=True),
    Column("project_id", String, nullable=False),
    Column("user_id", String, nullable=False),
    Column("activity_type", String, nullable=False),
    Column("description", Text, nullable=False),
    Column("activity_metadata", JSON),
)
