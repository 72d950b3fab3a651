"""Settings of InvocationService."""

from pydantic import Field

from services.settings import S3Settings, ServerSettings, config

MAX_CONTENT_BYTES = 1024 * 1024 * 1024
"""No payload or result may be larger: frames and checks of the worker know it too."""


class Settings(S3Settings, ServerSettings):
    """`FAAS_INVOCATIONS_…`."""

    model_config = config("invocations")

    database_url: str = Field(description="PostgreSQL, as a libpq URL.")
    database_connections: int = Field(
        10, ge=2, description="Connections to PostgreSQL that one replica opens at the most."
    )
    redis_url: str = Field(description="Redis, as a `redis://` or `unix://` URL.")
    functions_address: str = Field(description="Where FunctionService listens.")
    queue_limit: int = Field(
        2000,
        ge=1,
        description="Invocations in Redis at the most; the backlog beyond waits in PostgreSQL.",
    )
    storage_url: str = Field(
        "",
        description="Where payloads and results of more than 1 MiB are kept:"
        " `file:///directory` or `s3://bucket/prefix`, the same for all replicas; it may be"
        " FunctionService's. Empty: none so large are taken.",
    )
    max_payload_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1,
        le=MAX_CONTENT_BYTES,
        description="A payload's size at the most; without `storage_url` 1 MiB at the most.",
    )
    max_result_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024 * 1024,
        le=MAX_CONTENT_BYTES,
        description="A result's size at the most, whatever a worker lets through; without"
        " `storage_url` 1 MiB.",
    )
    max_transfers: int = Field(
        16,
        ge=1,
        description="Payloads and results of more than 1 MiB that are on their way at once, for"
        " callers and as many for workers; more wait. Each takes a few MiB of memory.",
    )
    orphan_sweep_interval_s: float = Field(
        3600.0,
        gt=0,
        description="How often content that no record names is looked for in the storage.",
    )
    orphan_age_s: float = Field(
        3600.0,
        ge=60,
        description="Content that no record names is removed when it is so old: older than any"
        " acceptance that could still be under way.",
    )
    max_log_bytes: int = Field(
        1024 * 1024, ge=0, description="What is kept of one attempt's output at the most."
    )
    lease_s: float = Field(
        30.0, gt=0, description="A worker whose heartbeat stands still for so long is lost."
    )
    overtime_s: float = Field(
        60.0, ge=0, description="A run that is still open so long after its timeout is lost."
    )
    recovery_interval_s: float = Field(
        3.0, gt=0, description="How often what was offered is compared with what is in Redis."
    )
    offer_grace_s: float = Field(
        5.0, gt=0, description="How old an offer must be before it can be found missing in Redis."
    )
    lost_backoff_s: float = Field(
        1.0, ge=0, description="Wait before a lost execution is offered again; doubles each loss."
    )
    sweep_interval_s: float = Field(
        10.0, gt=0, description="How often it looks for invocations that nobody started in time."
    )
    lost_workers_kept_s: float = Field(
        3600.0, ge=0, description="How long a lost worker is still listed."
    )
    watch_keepalive_s: float = Field(
        15.0,
        gt=0,
        le=45,
        description="A watch on which nothing happens says so often that it is alive."
        " Envoy gives up streams that are silent for 60 s.",
    )
    retention_days: int = Field(
        30,
        ge=1,
        description="Records, their logs and attempts are kept so long; then the days are dropped.",
    )
