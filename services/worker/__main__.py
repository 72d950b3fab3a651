"""Runs a worker: `python -m services.worker`."""

import asyncio
import os
import sys
from pathlib import Path

import structlog
import uvloop
from redis.asyncio import Redis

from faas.v1 import worker_service_pb2
from faas.v1.execution_service_pb2_grpc import ExecutionServiceStub
from faas.v1.function_build_service_pb2_grpc import FunctionBuildServiceStub
from faas.v1.function_registry_service_pb2_grpc import FunctionRegistryServiceStub
from services import ids
from services.channels import connect
from services.server import Server, stop_on_signals
from services.telemetry import configure_logging
from services.worker.agent import Agent
from services.worker.binaries import Binaries
from services.worker.builder import Builder
from services.worker.code_cache import SOURCE_FILES, CodeCache
from services.worker.pool import Budget
from services.worker.runtime import OutputLimits, Runtime, RuntimeUnavailable
from services.worker.servicer import WorkerServicer
from services.worker.settings import Settings
from services.worker.spool import Spool, StateInUse

# BLMOVE waits on the server; a socket that is silent for longer has failed.
REDIS_TIMEOUT_S = 10.0
# Between being told to end and having ended, for what takes work and reports.
END_S = 10.0
EXIT_BOOT_LOST = 75
"""EX_TEMPFAIL: start me again, under a new boot."""
EXIT_NO_STATE = 73
"""EX_CANTCREAT: another worker has the state directory, or it cannot be written."""
EXIT_NO_RUNTIME = 69
"""EX_UNAVAILABLE: what functions run in is not there."""

log = structlog.get_logger()


async def main() -> int:
    """Work until SIGTERM; the exit code."""
    settings = Settings()
    configure_logging(settings.log_level, settings.log_format, part="worker")
    worker_id = settings.id or await asyncio.to_thread(_kept_id, settings.state_dir)
    boot_id = str(ids.new_uuid())
    runtime = _runtime(settings, worker_id, boot_id)
    spool = Spool(
        settings.state_dir / "spool",
        boot_id=boot_id,
        max_result_bytes=settings.max_result_bytes,
        slots=settings.concurrency,
    )
    try:
        # First, so that no two workers share a state directory.
        legacies = spool.open()
    except (StateInUse, OSError) as error:
        log.error("the state directory cannot be used", reason=str(error))
        return EXIT_NO_STATE
    try:
        # Then what earlier boots left running is ended, before they are said to be over.
        await runtime.start()
    except RuntimeUnavailable as error:
        log.error("the runtime cannot run", runtime=settings.runtime, reason=str(error))
        return EXIT_NO_RUNTIME
    functions = connect(settings.functions_address)
    invocations = connect(settings.invocations_address)
    builds = FunctionBuildServiceStub(functions)
    redis = Redis.from_url(
        settings.redis_url,
        socket_timeout=REDIS_TIMEOUT_S,
        socket_connect_timeout=REDIS_TIMEOUT_S,
    )
    agent = Agent(
        worker_id=worker_id,
        boot_id=boot_id,
        runtime=runtime,
        cache=CodeCache(
            FunctionRegistryServiceStub(functions),
            settings.state_dir / "functions",
            max_unpacked_bytes=settings.max_unpacked_bytes,
        ),
        binaries=Binaries(builds, runtime),
        builder=Builder(
            builds,
            runtime,
            settings.state_dir / "builds",
            worker_id=worker_id,
            max_unpacked_bytes=settings.max_unpacked_bytes,
        ),
        redis=redis,
        spool=spool,
        legacies=legacies,
        executions=ExecutionServiceStub(invocations),
        concurrency=settings.concurrency,
        heartbeat_interval_s=settings.heartbeat_interval_s,
        heartbeat_fresh_s=settings.heartbeat_fresh_s,
    )
    server = Server(settings.listen_address)
    server.add(
        worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"], WorkerServicer(agent)
    )
    log.info("starting", worker_id=worker_id, boot_id=boot_id, runtime=settings.runtime)
    try:
        return await _work(agent, server, settings.drain_timeout_s)
    finally:
        await runtime.close()
        spool.close()
        await redis.aclose()
        await functions.close()
        await invocations.close()


async def _work(agent: Agent, server: Server, drain_timeout_s: float) -> int:
    """Run `agent` until a signal, and drain; or until its boot is lost, and drop all."""
    working = asyncio.create_task(agent.run(), name="work")
    stopping = asyncio.create_task(stop_on_signals().wait(), name="stop on signals")
    lost = asyncio.create_task(agent.boot_lost.wait(), name="boot lost")
    await server.start()
    await asyncio.wait({working, stopping, lost}, return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if working.done():
        working.result()
    if lost.done():
        code = EXIT_BOOT_LOST
        await agent.kill_all()
    else:
        await agent.drained(drain_timeout_s)
        await agent.give_back()
    working.cancel()
    _, late = await asyncio.wait({working}, timeout=END_S)
    if late:
        # What is left of it ends with the process.
        log.error("the work did not end in time")
    if code == 0:
        await agent.goodbye()
    await server.stop()
    log.info("ended", code=code)
    return code


def _runtime(settings: Settings, worker_id: str, boot_id: str) -> Runtime:
    limits = OutputLimits(
        result_bytes=settings.max_result_bytes,
        log_bytes=settings.max_log_bytes,
        kill_bytes=settings.max_output_bytes,
    )
    if settings.runtime == "docker":
        from services.worker.docker_runtime import DockerRuntime

        return DockerRuntime(
            work_dir=settings.work_dir,
            stack=settings.stack,
            worker_id=worker_id,
            boot_id=boot_id,
            limits=limits,
            network=settings.network,
            engine_socket=settings.docker_socket,
            budget=_budget(settings),
            one_shot=settings.sandboxes == "one-shot",
        )
    from services.worker.process_runtime import ProcessRuntime

    return ProcessRuntime(
        work_dir=settings.work_dir,
        stack=settings.stack,
        worker_id=worker_id,
        boot_id=boot_id,
        limits=limits,
    )


def _budget(settings: Settings) -> Budget:
    return Budget(
        sandboxes=max(settings.max_sandboxes, settings.concurrency),
        memory_mb=settings.sandbox_memory_mb,
        cores=os.cpu_count() or 1,
        idle_s=settings.sandbox_idle_s,
        max_uses=settings.sandbox_max_uses,
        kept_share=settings.kept_share,
        prewarmed=dict.fromkeys(SOURCE_FILES, settings.prewarmed),
    )


def _kept_id(state_dir: Path) -> str:
    """The id of the worker that this state directory belongs to, made the first time."""
    file = state_dir / "id"
    if file.exists():
        return file.read_text().strip()
    state_dir.mkdir(parents=True, exist_ok=True)
    worker_id = ids.show(ids.WORKER, ids.new_uuid())
    file.write_text(worker_id + "\n")
    return worker_id


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
