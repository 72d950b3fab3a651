"""Where a stack listens: an address that may be, and a port that nobody else has."""

import errno
import ipaddress
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from services.supervisor.errors import Refused


def checked_host(host: str, *, insecure: bool) -> str:
    """An IP address that may be listened at. Raises Refused."""
    host = {"localhost": "127.0.0.1"}.get(host, host.removeprefix("[").removesuffix("]"))
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise Refused(f"--host {host!r}: must be an IP address, such as 127.0.0.1.") from None
    if not address.is_loopback and not insecure:
        raise Refused(
            f"--host {host}: others would reach it, and there is no access control yet: whoever"
            " reaches the port runs code on this machine. If you mean it, say --insecure."
        )
    return host


def free_port(host: str, port: int) -> int:
    """`port`, which nobody has, or for 0 any such port. Raises Refused."""
    with socket.socket(_family(host)) as probe:
        # As servers do: what lingers of connections that have ended is no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # Only listening tells for sure where addresses may be shared.
            probe.listen()
        except PermissionError as error:
            raise Refused(f"Port {port} of {host} is not open to you: choose --port.") from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise Refused(f"--host {host}: {error.strerror}.") from error
            raise Refused(
                f"Port {port} of {host} is taken: choose another with --port, or --port 0."
            ) from error
        found: int = probe.getsockname()[1]
        return found


@contextmanager
def reserved(host: str, port: int) -> Iterator[None]:
    """Keep `port` from all but our own Envoy.

    On Linux Envoy shares its port among its threads, so two Envoys would share one as
    well, in silence. A socket that is bound so and listens not lets ours in, and is in
    the way of every `free_port`. Elsewhere the second Envoy is refused.
    """
    with socket.socket(_family(host)) as reservation:
        if sys.platform == "linux":
            reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reservation.bind((host, port))
        yield


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
