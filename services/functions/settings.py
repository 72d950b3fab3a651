"""Settings of FunctionService."""

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from services.settings import S3Settings, ServerSettings, config


class Settings(S3Settings, ServerSettings):
    """`FAAS_FUNCTIONS_…`."""

    model_config = config("functions")

    database_url: str = Field(description="PostgreSQL, as a libpq URL.")
    database_connections: int = Field(
        10, ge=1, description="Connections to PostgreSQL that one replica opens at the most."
    )
    storage_url: str = Field(
        description="Where code is kept: `file:///directory` or `s3://bucket/prefix`."
    )
    runtimes: Annotated[tuple[str, ...], NoDecode] = Field(
        ("python", "node", "go"),
        description="Runtimes that this deployment has, separated by commas.",
    )
    max_upload_bytes: int = Field(
        64 * 1024 * 1024, ge=1, description="Size of an uploaded archive at the most."
    )
    max_unpacked_bytes: int = Field(
        512 * 1024 * 1024, ge=1, description="What an archive may unpack to at the most."
    )
    max_binary_bytes: int = Field(
        128 * 1024 * 1024, ge=1, description="Size of a compiled function at the most."
    )
    build_lease_s: float = Field(
        15.0,
        gt=0,
        description="A worker that compiles a function and has not been heard of for so long"
        " is taken for lost: another one takes over.",
    )
    build_pickup_s: float = Field(
        10.0,
        gt=0,
        description="A deployment with `validate` is refused when no worker has begun to"
        " compile it by then.",
    )
    upload_lifetime_s: float = Field(
        86_400.0, gt=0, description="How long an upload waits for a function to name it."
    )
    sweep_interval_s: float = Field(
        600.0, gt=0, description="How often code that nothing names is looked for."
    )
    sweep_age_s: float = Field(
        3600.0,
        ge=60,
        description="Code that nothing names is removed when it is so old: older than any"
        " creation, change or upload that could still be under way.",
    )

    @field_validator("runtimes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value
