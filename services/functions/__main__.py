"""Runs FunctionService: `python -m services.functions`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvloop

from faas.v1 import (
    function_build_service_pb2,
    function_registry_service_pb2,
    function_service_pb2,
)
from services.archive import Limits
from services.background import running
from services.functions.build_servicer import BuildServicer
from services.functions.build_waits import BuildWaits
from services.functions.builds import Builds
from services.functions.catalog import Catalog
from services.functions.changes import Changes
from services.functions.database import UNAVAILABLE, Database
from services.functions.edits import Edits
from services.functions.servicers import FunctionServicer, RegistryServicer
from services.functions.settings import Settings
from services.functions.sweeper import Sweeper
from services.functions.uploads import Uploads
from services.postgresql import is_unsure
from services.server import Server
from services.storage import StorageUnavailable, open_storage
from services.telemetry import configure_logging


@asynccontextmanager
async def service(settings: Settings) -> AsyncIterator[Server]:
    """The service, wired; its background tasks run while this is entered."""
    database = Database(settings.database_url, connections=settings.database_connections)
    storage = open_storage(
        settings.storage_url,
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        key_id=settings.s3_access_key_id,
        secret=settings.s3_secret_access_key,
    )
    limits = Limits(unpacked_bytes=settings.max_unpacked_bytes)
    catalog, changes = Catalog(database), Changes(settings.database_url)
    builds = Builds(database, storage, lease_s=settings.build_lease_s)
    waits = BuildWaits(builds, pickup_s=settings.build_pickup_s)
    edits = Edits(
        database=database,
        storage=storage,
        catalog=catalog,
        changes=changes,
        builds=builds,
        waits=waits,
        runtimes=settings.runtimes,
        limits=limits,
    )
    uploads = Uploads(
        database=database,
        storage=storage,
        limits=limits,
        max_bytes=settings.max_upload_bytes,
        lifetime_s=settings.upload_lifetime_s,
    )
    sweeper = Sweeper(
        database=database,
        storage=storage,
        builds=builds,
        interval_s=settings.sweep_interval_s,
        age_s=settings.sweep_age_s,
    )
    server = Server(
        settings.listen_address,
        drain_timeout_s=settings.drain_timeout_s,
        unavailable=(*UNAVAILABLE, StorageUnavailable),
        unsure=is_unsure,
        on_drain=[changes.close, waits.close],
    )
    server.add(
        function_service_pb2.DESCRIPTOR.services_by_name["FunctionService"],
        FunctionServicer(
            catalog=catalog, builds=builds, edits=edits, uploads=uploads, storage=storage
        ),
    )
    server.add(
        function_registry_service_pb2.DESCRIPTOR.services_by_name["FunctionRegistryService"],
        RegistryServicer(catalog=catalog, storage=storage, changes=changes),
    )
    server.add(
        function_build_service_pb2.DESCRIPTOR.services_by_name["FunctionBuildService"],
        BuildServicer(
            catalog=catalog,
            builds=builds,
            waits=waits,
            storage=storage,
            max_binary_bytes=settings.max_binary_bytes,
        ),
    )
    try:
        async with running(sweeper.run(), changes.run()):
            yield server
    finally:
        await database.close()


async def main() -> None:
    """Serve until SIGTERM."""
    settings = Settings()
    configure_logging(settings.log_level, settings.log_format, part="functions")
    async with service(settings) as server:
        await server.run()


if __name__ == "__main__":
    uvloop.run(main())
