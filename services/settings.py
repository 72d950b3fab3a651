"""How every process is configured: `FAAS_<PART>_<NAME>[_<UNIT>]` in the environment.

Each process has one frozen `Settings` in its `settings.py`, built in its
`__main__.py`; no module reads the environment at import. The reference page
`docs/reference/settings.md` is made from these classes, and a test keeps it so.
"""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def config(part: str) -> SettingsConfigDict:
    """The configuration of the settings of one part, such as `functions`."""
    return SettingsConfigDict(env_prefix=f"FAAS_{part.upper()}_", frozen=True, extra="ignore")


class ServerSettings(BaseSettings):
    """What every gRPC server can be told."""

    listen_address: str = Field(
        "127.0.0.1:0",
        description="Where its gRPC server listens: `host:port`, or `unix:/path`.",
    )
    drain_timeout_s: float = Field(
        10.0,
        ge=0,
        description="How long, after SIGTERM, calls that are under way may take to end.",
    )
    log_level: str = Field(
        "info", description="`debug`, `info`, `warning` or `error`: the least that is logged."
    )
    log_format: str = Field(
        "json", description="`json`, one object a line, or `text`, for people at a terminal."
    )


class S3Settings(BaseSettings):
    """What a server can be told of the S3 that its `storage_url` names."""

    s3_endpoint: str = Field(
        "", description="S3 server, if it is not Amazon's: `https://host:port`."
    )
    s3_region: str = Field("us-east-1", description="Region of the bucket.")
    s3_access_key_id: str = Field(
        "", description="Access key. Empty: by the environment, as usual for S3 clients."
    )
    s3_secret_access_key: str = Field("", description="Secret of the access key.")
