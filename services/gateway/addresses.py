"""Where a part listens: `host:port`, `[v6]:port`, or `unix:/path`."""

import ipaddress
from dataclasses import dataclass

# A socket's path has 108 bytes in the kernel, one of them the final NUL.
MAX_PATH_BYTES = 107


@dataclass(frozen=True)
class Address:
    """A unix socket's `path`, or else a `host`, without brackets, and a `port`."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> "Address":
        """The address that `text` says. Raises ValueError."""
        scheme, _, path = text.partition(":")
        if scheme == "unix":
            if not path.startswith("/") or len(path.encode()) > MAX_PATH_BYTES:
                raise ValueError(f"{text!r}: must be an absolute path of up to 107 bytes")
            return cls(path=path)
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"{text!r}: must be 'host:port' or 'unix:/path'")
        return cls(host=host, port=int(port))

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an IP address; None if it is a name, or a path."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def is_name(self) -> bool:
        """Whether the host has to be looked up."""
        return not self.path and self.ip is None

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return bool(self.path) or (self.ip is not None and self.ip.is_loopback)

    @property
    def url_host(self) -> str:
        """The host as URLs and Host headers have it: IPv6 in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host
