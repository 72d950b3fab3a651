"""Settings of the gateway: of its own process, and of Envoy, which is rendered from them."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode

from services.gateway.addresses import Address
from services.settings import ServerSettings, config


def _address(text: str) -> str:
    Address.parse(text)
    return text


def _listening(text: str) -> str:
    """Envoy listens at an IP address: `localhost` stands for 127.0.0.1."""
    if text.startswith("localhost:"):
        text = text.replace("localhost", "127.0.0.1", 1)
    if Address.parse(text).is_name:
        raise ValueError(f"{text!r}: must be an IP address and a port, or 'unix:/path'")
    return text


def _admin(text: str) -> str:
    text = _listening(text) if text else ""
    if text and not Address.parse(text).is_local:
        raise ValueError("must be a loopback address or a unix socket: it can stop Envoy")
    return text


def _names(value: object) -> object:
    """A comma-separated list, as the environment has it."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


PartAddress = Annotated[str, AfterValidator(_address)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]


class _Parts(BaseSettings):
    """Where the parts behind Envoy are."""

    functions_address: PartAddress = Field(description="Where FunctionService listens.")
    invocations_address: PartAddress = Field(description="Where InvocationService listens.")


class Settings(_Parts, ServerSettings):
    """`FAAS_GATEWAY_…`, of the process beside Envoy."""

    model_config = config("gateway")

    http_address: PartAddress = Field(
        "127.0.0.1:0",
        description="Where it answers `/health` and `/openapi.json`, for Envoy: "
        "`host:port`, or `unix:/path`.",
    )
    database_url: str = Field(description="PostgreSQL, as a libpq URL. Only asked for health.")
    redis_url: str = Field(
        description="Redis, as a `redis://` or `unix://` URL. Only asked for health."
    )
    health_timeout_s: float = Field(
        2.0, gt=0, le=8, description="A part that has not answered by then is NOT_SERVING."
    )


class EnvoySettings(_Parts):
    """`FAAS_GATEWAY_…`, of Envoy: what `python -m services.gateway.render` reads."""

    model_config = config("gateway")

    listen_address: PartAddress = Field(
        description="Where the gateway's gRPC server listens, for reflection and health."
    )
    http_address: PartAddress = Field(
        description="Where the gateway's HTTP server listens, for `/health` and `/openapi.json`."
    )
    public_address: Annotated[str, AfterValidator(_listening)] = Field(
        "127.0.0.1:8080",
        description="Where callers come in: HTTP/JSON, gRPC and gRPC-Web on one port.",
    )
    envoy_admin_address: Annotated[str, AfterValidator(_admin)] = Field(
        "",
        description="Where Envoy's administration interface listens, on loopback or a unix "
        "socket. Empty: nowhere.",
    )
    allowed_hosts: Names = Field(
        (),
        description="Host names, comma-separated, that are served beside `localhost`, "
        "`127.0.0.1`, `[::1]` and a specific public address; `*.example.com` for all below one, "
        "`*` for any. Ports do not matter.",
    )
    allowed_origins: Names = Field(
        (),
        description="Origins, comma-separated, such as `https://app.example.com`, whose pages "
        "may call the API from a browser (CORS). The gateway's own always may.",
    )
    json_limit_bytes: int = Field(
        1024 * 1024 + 64 * 1024,
        ge=1024,
        le=16 * 1024 * 1024,
        description="A JSON body may be so large.",
    )
    upload_limit_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024,
        description="`/uploads` refuses at once what says that it is larger, and callers are "
        "told this limit. FunctionService counts what arrives, up to its own "
        "`FAAS_FUNCTIONS_MAX_UPLOAD_BYTES`.",
    )
    call_limit_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024,
        description="`/functions/{function_id}:call` refuses at once what says that it is larger,"
        " and callers are told this limit. InvocationService counts what arrives, up to its own"
        " `FAAS_INVOCATIONS_MAX_PAYLOAD_BYTES`.",
    )
    wait_timeout_s: int = Field(
        930,
        ge=60,
        description="InvocationService has so long to answer: longer than the longest `wait`, "
        "900 s.",
    )
    max_connections: int = Field(
        8192, ge=16, description="Connections of callers at the most; more are closed at once."
    )
    max_requests: int = Field(
        16384, ge=16, description="Calls under way to one service at the most; more get 503."
    )
    max_heap_bytes: int = Field(
        1024 * 1024 * 1024,
        ge=64 * 1024 * 1024,
        description="Near this much memory Envoy answers new requests with 503.",
    )
