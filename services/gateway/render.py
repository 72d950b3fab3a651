"""Envoy's configuration: `python -m services.gateway.render > envoy.yaml`."""

import base64
import sys

import jinja2
from google.protobuf import descriptor_pb2

from services.gateway import assets
from services.gateway.addresses import Address
from services.gateway.public import PUBLIC_SERVICES
from services.gateway.replies import OTHER, REFUSALS, UPSTREAM_FAILURES, replies
from services.gateway.settings import EnvoySettings

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")

HEADERS_LIMIT_KB = 32

# What is held of a body that streams, to be sent again where a call did not begin. By
# default it would be all of it.
RETRY_LIMIT_BYTES = 256 * 1024

# A transcoded answer is held whole: 16 MiB of protobuf, in JSON's words.
RESPONSE_LIMIT_BYTES = 64 * 1024 * 1024

# Headers by which proxies and the mesh tell who calls: never believed from outside.
STRIPPED_PREFIXES = (
    "x-faas-",
    "x-forwarded-",
    "x-envoy-",
    "x-auth-request-",
    "x-authenticated-",
    "x-remote-",
)
# CallFunction's: it takes bodies of any content type.
CALL_PATH = "/functions/[^/:?]+:call"

STRIPPED_HEADERS = ("forwarded", "x-real-ip", "remote-user")


def render(settings: EnvoySettings) -> str:
    """The whole of `envoy.yaml`."""
    public = Address.parse(settings.public_address)
    hosts = _hosts(public, settings.allowed_hosts)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(assets.envoy_directory()),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - YAML; every value goes through tojson
        keep_trailing_newline=True,
    )
    return environment.get_template("envoy.yaml").render(
        settings.model_dump(include=_PASSED),
        public=public,
        admin=settings.envoy_admin_address and Address.parse(settings.envoy_admin_address),
        functions=Address.parse(settings.functions_address),
        invocations=Address.parse(settings.invocations_address),
        gateway=Address.parse(settings.listen_address),
        gateway_http=Address.parse(settings.http_address),
        hosts=hosts,
        any_host="*" in hosts,
        own_origins=_own_origins(hosts, public.port),
        allowed_origins=list(settings.allowed_origins),
        stripped_prefixes=STRIPPED_PREFIXES,
        stripped_headers=STRIPPED_HEADERS,
        services=PUBLIC_SERVICES,
        call_path=CALL_PATH,
        descriptors=_descriptors(),
        response_limit_bytes=RESPONSE_LIMIT_BYTES,
        headers_limit_kb=HEADERS_LIMIT_KB,
        retry_limit_bytes=RETRY_LIMIT_BYTES,
        replies=replies(
            json_limit_bytes=settings.json_limit_bytes,
            upload_limit_bytes=settings.upload_limit_bytes,
            call_limit_bytes=settings.call_limit_bytes,
            headers_limit_kb=HEADERS_LIMIT_KB,
        ),
        other_reply=OTHER,
        upstream_failures=UPSTREAM_FAILURES,
        refusals=REFUSALS,
    )


_PASSED = {
    "json_limit_bytes",
    "upload_limit_bytes",
    "call_limit_bytes",
    "wait_timeout_s",
    "max_connections",
    "max_requests",
    "max_heap_bytes",
}


def _hosts(public: Address, allowed: tuple[str, ...]) -> list[str]:
    """Host names that are served, without ports."""
    own = [public.url_host] if public.ip and not public.ip.is_unspecified else []
    return list(dict.fromkeys([*LOCAL_HOSTS, *own, *allowed]))


def _own_origins(hosts: list[str], port: int) -> list[str]:
    """The Origins of pages that the gateway itself serves."""
    exact = [host for host in hosts if "*" not in host]
    return [f"{scheme}://{host}:{port}" for host in exact for scheme in ("http", "https")]


def _descriptors() -> str:
    """The descriptor set without its comments, as YAML has bytes."""
    files = descriptor_pb2.FileDescriptorSet.FromString(assets.DESCRIPTORS.read_bytes())
    for file in files.file:
        file.ClearField("source_code_info")
    return base64.b64encode(files.SerializeToString()).decode()


if __name__ == "__main__":
    sys.stdout.write(render(EnvoySettings()))
