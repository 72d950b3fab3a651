"""Settings of InvocationService."""

from pydantic import Field

from services.settings import ServerSettings, config


class Settings(ServerSettings):
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
    max_payload_bytes: int = Field(
        1024 * 1024, ge=1, description="A payload's size as JSON at the most."
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
