"""A whole platform for tests of clients: real parts behind a real Envoy, once a run."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from faas.blocking import Portal
from services.supervisor.postgres import Postgres
from services.supervisor.valkey import Valkey
from tests.integration.gateway import Envoy
from tests.mesh import Mesh


@dataclass
class Platform:
    """Where it is, and its parts."""

    url: str
    envoy: Envoy
    mesh: Mesh
    portal: Portal

    def restart(self, name: str, **settings: Any) -> None:
        """Kill a part and start it again."""
        self.portal.run(self.mesh.kill(name))
        self.portal.run(self.mesh.start(name, **settings))


@contextmanager
def running_platform(postgres: Postgres, valkey: Valkey, template: str) -> Iterator[Platform]:
    """Both services and one worker, behind Envoy."""
    directory = Path(tempfile.mkdtemp(prefix="faas-p-", dir="/tmp"))
    name = sql.Identifier(directory.name)
    portal = Portal()
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        query = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(query.format(name, sql.Identifier(template)))
        database_url = postgres.url.replace("/faas?", f"/{directory.name}?")
        # The last one: tests count theirs from the first.
        mesh = Mesh(directory, database_url, f"{valkey.url}?db=15")
        portal.run(mesh.__aenter__())
        try:
            portal.run(mesh.start("functions", "invocations"))
            portal.run(mesh.start("worker-1", concurrency=4))
            addresses = {f"{p}_address": mesh.address(p) for p in ("functions", "invocations")}
            envoy = Envoy(directory, **addresses)
            envoy.start()
            try:
                yield Platform(envoy.url, envoy, mesh, portal)
            finally:
                envoy.stop()
        finally:
            # What a test left running is not waited for.
            portal.run(mesh.kill("worker-1"))
            portal.run(mesh.__aexit__(None, None, None))
            portal.close()
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
            shutil.rmtree(directory, ignore_errors=True)
