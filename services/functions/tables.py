"""The tables of FunctionService. Their history is in services/migrations."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, ForeignKey, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """All tables; moments are with time zone, texts without a length."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way
        datetime: DateTime(timezone=True),
        str: Text(),
        dict[str, str]: JSONB(),
    }


class FunctionRow(Base):
    """What may change without a new version."""

    __tablename__ = "functions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(default="default")
    name: Mapped[str]
    description: Mapped[str]
    labels: Mapped[dict[str, str]]
    retry_policy: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    max_age_ms: Mapped[int | None] = mapped_column(BigInteger())
    max_concurrency: Mapped[int | None]
    min_warm: Mapped[int | None]
    version: Mapped[int]
    etag: Mapped[UUID]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None] = mapped_column(default=None)


class VersionRow(Base):
    """What decides how a function runs: never updated."""

    __tablename__ = "function_versions"

    function_id: Mapped[UUID] = mapped_column(ForeignKey("functions.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    runtime: Mapped[str]
    handler: Mapped[str]
    memory_mb: Mapped[int]
    cpus: Mapped[float]
    timeout_ms: Mapped[int]
    env: Mapped[dict[str, str]]
    code_format: Mapped[str]
    code_sha256: Mapped[str]
    code_size_bytes: Mapped[int] = mapped_column(BigInteger())
    sandbox: Mapped[str | None]
    created_at: Mapped[datetime]


class BuildRow(Base):
    """The build of one source for one target; versions of the same source share it."""

    __tablename__ = "builds"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    function_id: Mapped[UUID]
    code_format: Mapped[str]
    code_sha256: Mapped[str]
    runtime: Mapped[str]
    handler: Mapped[str]
    target: Mapped[str]
    status: Mapped[str]
    reason: Mapped[str]
    due_at: Mapped[datetime]
    grant_id: Mapped[UUID | None]
    worker_id: Mapped[str]
    losses: Mapped[int]
    binary_sha256: Mapped[str | None]
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]


class UploadRow(Base):
    """Code that waits for a function to name it."""

    __tablename__ = "uploads"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    code_format: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger())
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
