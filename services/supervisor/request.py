"""What `faas up` is told."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """The options of `faas up`."""

    data_dir: Path | None = None
    """None: the default one."""
    host: str = "127.0.0.1"
    port: int = 8080
    """0: any free one."""
    runtime: str | None = None
    """None: Docker, if it can be had."""
    workers: int = 2
    insecure: bool = False
    """Others may reach it."""

    def arguments(self) -> list[str]:
        """The command line that says this."""
        said = [f"--host={self.host}", f"--port={self.port}", f"--workers={self.workers}"]
        if self.data_dir:
            said.append(f"--data-dir={self.data_dir}")
        if self.runtime:
            said.append(f"--runtime={self.runtime}")
        return [*said, "--insecure"] if self.insecure else said
