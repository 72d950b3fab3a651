"""The gateway's plain HTTP: the web UI, and `/health`, outside the transcoder to say 503."""

import json
from collections.abc import Mapping
from typing import Any

import structlog
from aiohttp import web

from services.gateway.addresses import Address
from services.gateway.health import Health
from services.gateway.replies import OTHER, UNKNOWN_PATH
from services.gateway.static_files import StaticFile

log = structlog.get_logger()


def application(health: Health, openapi: bytes, files: Mapping[str, StaticFile]) -> web.Application:
    """Answers `/health`, `/openapi.json` and the UI's files, else with JSON errors."""

    async def get_health(_request: web.Request) -> web.Response:
        report = await health.report()
        answer = _json(report.to_json(), 200 if report.serving else 503)
        answer.headers["Cache-Control"] = "no-store"
        return answer

    async def get_openapi(_request: web.Request) -> web.Response:
        return web.Response(
            body=openapi,
            content_type="application/json",
            headers={"Cache-Control": "no-cache"},
        )

    async def get_file(request: web.Request) -> web.Response:
        file = files.get(request.path)
        if file is None:
            raise web.HTTPNotFound
        return file.answer(request)

    application = web.Application(middlewares=[_json_errors])
    application.router.add_get("/health", get_health)
    application.router.add_get("/openapi.json", get_openapi)
    application.router.add_get("/", get_file)
    application.router.add_get("/ui/{name:.*}", get_file)
    return application


async def serve(application: web.Application, address: Address) -> web.AppRunner:
    """Start listening; `cleanup` of what comes back ends it."""
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    site: web.BaseSite
    if address.path:
        site = web.UnixSite(runner, address.path)
    else:
        site = web.TCPSite(runner, address.host, address.port)
    await site.start()
    log.info("listening", address=site.name)
    return runner


@web.middleware
async def _json_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        answer: web.StreamResponse = await handler(request)
    except web.HTTPException as error:
        # A path with a method that it does not take is no call that there is.
        reply = UNKNOWN_PATH if error.status in (404, 405) else OTHER
        message = f"{request.method} {request.path}: there is no such call."
        return _json(reply.to_json(message), reply.status)
    return answer


def _json(value: dict[str, Any], status: int) -> web.Response:
    """JSON as Envoy sends it: it is UTF-8, and does not say so."""
    body = json.dumps(value).encode()
    return web.Response(body=body, status=status, content_type="application/json")
