"""Runs the gateway's own server, beside Envoy: `python -m services.gateway`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvloop

from services.background import running
from services.gateway import assets, static_files
from services.gateway.addresses import Address
from services.gateway.health import Health
from services.gateway.probes import probes
from services.gateway.public import FUNCTIONS, INVOCATIONS, PUBLIC_SERVICES
from services.gateway.settings import Settings
from services.gateway.web import application, serve
from services.server import Server
from services.telemetry import configure_logging

# How often the standard gRPC health service is told what the parts answer.
PUBLISH_INTERVAL_S = 1.0


@asynccontextmanager
async def service(settings: Settings) -> AsyncIterator[Server]:
    """The gateway, wired; its HTTP server listens while this is entered."""
    server = Server(
        settings.listen_address,
        drain_timeout_s=settings.drain_timeout_s,
        reflect=PUBLIC_SERVICES,
    )
    async with probes(settings) as asked:
        health = Health(asked, timeout_s=settings.health_timeout_s)
        http = application(health, assets.OPENAPI.read_bytes(), static_files.load(assets.STATIC))
        runner = await serve(http, Address.parse(settings.http_address))
        try:
            async with running(_publish(health, server)):
                yield server
        finally:
            await runner.cleanup()


async def _publish(health: Health, server: Server) -> None:
    """Let the standard health service say what `/health` says."""
    while True:
        report = await health.report()
        await server.set_serving("", report.serving)
        await server.set_serving(FUNCTIONS, report.part("functions"))
        await server.set_serving(INVOCATIONS, report.part("invocations"))
        await asyncio.sleep(PUBLISH_INTERVAL_S)


async def main() -> None:
    """Serve until SIGTERM."""
    settings = Settings()
    configure_logging(settings.log_level, settings.log_format, part="gateway")
    async with service(settings) as server:
        await server.run()


if __name__ == "__main__":
    uvloop.run(main())
