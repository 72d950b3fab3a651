#!/usr/bin/env python3
"""Builds the runtime images: `make images`, or `python runtimes/build.py`.

Bases come from a registry (the official slim images) or, where none can be
reached, from Debian packages by `mmdebstrap`, without any registry. An image is
left as it is while what it is made of is unchanged. Needs the `docker` command
and Python's standard library only.
"""

import argparse
import hashlib
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUITE = "trixie"
# A registry that has not begun to answer by then is taken to be out of reach.
REGISTRY_TIMEOUT_S = 15.0
CONTENT_LABEL = "faas.content"
BASE_LABEL = "faas.base"

# What no function needs.
LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")


class BuildError(Exception):
    """An image cannot be built; the text says why and what to do."""


@dataclass(frozen=True)
class Image:
    """One image, and what it is made of."""

    name: str
    directory: str
    dockerfile: str
    official: str
    """The base from a registry."""
    packages: tuple[str, ...]
    """The base from Debian: these, on top of the essential packages."""

    @property
    def tag(self) -> str:
        """How it is called."""
        return f"{self.name}:latest"

    @property
    def debian_base(self) -> str:
        """How its base from Debian packages is called."""
        return f"{self.name}-base:debian-{SUITE}"

    def content(self, base: str) -> str:
        """A hash of all it is made of, but for updates of the base."""
        digest = hashlib.sha256(self.base_recipe(base).encode())
        for file in sorted((HERE / self.directory).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(HERE)} {file.stat().st_mode:o}\n".encode())
                digest.update(file.read_bytes())
        return digest.hexdigest()

    def base_recipe(self, base: str) -> str:
        """What decides what the base is."""
        return self.official if base == "registry" else " ".join(bootstrap_options(self.packages))


IMAGES = {
    "python": Image(
        "faas-runtime-python",
        "python",
        "Dockerfile",
        "python:3.13-slim",
        ("python3", "ca-certificates", "tzdata"),
    ),
    "node": Image(
        "faas-runtime-node", "node", "Dockerfile", "node:22-slim", ("nodejs", "ca-certificates")
    ),
    "go": Image(
        "faas-runtime-go", "go", "Dockerfile", "alpine:3", ("ca-certificates", "tzdata")
    ),
    "go-build": Image(
        "faas-build-go", "go", "Dockerfile.build", "golang:1.26-alpine", ("golang-go",)
    ),
}
NEEDED = {"python": ("python",), "node": ("node",), "go": ("go", "go-build")}


class Builder:
    """Builds images one by one or several at once, saying what it does."""

    def __init__(self, base: str, force: bool) -> None:
        """Bases from `registry` or `debian`; `auto` finds out."""
        self._base = base
        self._force = force
        self._deciding = threading.Lock()
        self._started = time.monotonic()

    def build(self, image: Image) -> str:
        """Make sure that `image` is there and current; its id."""
        if not self._force and self._is_current(image):
            self._say(image, "is current")
        else:
            base = self._ensure_base(image)
            self._say(image, f"building on {base}")
            self._build(image, base)
        size = int(inspect(image.tag, "{{.Size}}"))
        self._say(image, f"is there, {size / 1e6:.0f} MB")
        return inspect(image.tag, "{{.Id}}")

    def _is_current(self, image: Image) -> bool:
        base, content = labels(image.tag)
        return bool(base) and self._base in (base, "auto") and content == image.content(base)

    def _ensure_base(self, image: Image) -> str:
        with self._deciding:
            if self._base == "auto":
                self._say(image, f"trying the registry for {image.official}")
                self._base = "registry" if begins_to_pull(image.official) else "debian"
                if self._base == "debian":
                    self._say(image, "no registry answers: making bases from Debian packages")
        if self._base == "registry":
            self._say(image, f"pulling {image.official}")
            run("docker", "pull", "--quiet", image.official)
            return image.official
        if labels(image.debian_base)[1] != hashed(image.base_recipe("debian")):
            self._say(image, f"making its base from Debian {SUITE}; takes about half a minute")
            bootstrap(image)
        return image.debian_base

    def _build(self, image: Image, base: str) -> None:
        directory = HERE / image.directory
        run(
            *("docker", "build", "--quiet", "--force-rm", "--tag", image.tag),
            *("--file", str(directory / image.dockerfile)),
            *("--build-arg", f"BASE_IMAGE={base}"),
            *("--label", f"{BASE_LABEL}={self._base}"),
            *("--label", f"{CONTENT_LABEL}={image.content(self._base)}"),
            str(directory),
        )

    def _say(self, image: Image, what: str) -> None:
        elapsed_s = time.monotonic() - self._started
        print(f"[{elapsed_s:6.1f} s] {image.name}: {what}", flush=True)


def begins_to_pull(reference: str) -> bool:
    """Whether a registry answers when the engine asks it for `reference`."""
    command = ["docker", "pull", reference]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as pull:
        lines: queue.Queue[str] = queue.Queue()
        assert pull.stdout is not None
        reader = threading.Thread(target=_put_lines, args=(pull.stdout, lines), daemon=True)
        reader.start()
        try:
            # The first line comes when the registry has said what the reference is;
            # the end of the output (an empty line) where it cannot be asked.
            answered = "Pulling from" in lines.get(timeout=REGISTRY_TIMEOUT_S)
        except queue.Empty:
            answered = False
        # What has been pulled so far is kept by the engine.
        pull.kill()
        reader.join()
    return answered


def _put_lines(output: Iterator[str], lines: "queue.Queue[str]") -> None:
    for line in output:
        lines.put(line)
    lines.put("")


def bootstrap_options(packages: tuple[str, ...]) -> list[str]:
    """What `mmdebstrap` is told, for `packages` and the essential ones alone."""
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    return ["--variant=essential", f"--include={','.join(packages)}", *excluded, SUITE]


def bootstrap(image: Image) -> None:
    """Make `image`'s base from Debian packages."""
    if shutil.which("mmdebstrap") is None:
        raise BuildError(
            "no registry answers, and mmdebstrap is not there to make bases from Debian"
            " packages: install it (apt-get install mmdebstrap), or load the images from"
            " a machine that has them (docker save, docker load)"
        )
    content = hashed(image.base_recipe("debian"))
    options = bootstrap_options(image.packages)
    with subprocess.Popen(
        ["mmdebstrap", "--quiet", "--format=tar", *options, "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as debian:
        imported = subprocess.run(
            ["docker", "import", "--change", f"LABEL {CONTENT_LABEL}={content}", "-", "-"][:5]
            + [image.debian_base],
            stdin=debian.stdout,
            capture_output=True,
        )
        assert debian.stderr is not None
        complaint = debian.stderr.read().decode(errors="replace")
    if debian.returncode != 0:
        subprocess.run(["docker", "image", "rm", image.debian_base], capture_output=True)
        raise BuildError(f"mmdebstrap failed:\n{complaint[-4000:]}")
    if imported.returncode != 0:
        raise BuildError(f"docker import failed:\n{imported.stderr.decode(errors='replace')}")
