#!/usr/bin/env python3
"""Builds the runtime images: `make images`, or `python runtimes/build.py`.

Bases come from a registry (the official slim images) or, where none can be
reached, from Debian packages by `mmdebstrap`, without any registry. An image is
left as it is while what it is made of is unchanged. Needs the `docker` command
and Python's standard library only.
"""

import argparse
import hashlib
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
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
LEFT_OUT = (
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/doc-base/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*",
    "/usr/share/bash-completion/*",
    "/usr/share/nodejs/corepack/*",
    "/usr/share/go-*/test/*",
    "/usr/lib/*/gconv/*",
    "/usr/lib/python3*/ensurepip/*",
    "/usr/lib/python3*/idlelib/*",
    "/usr/lib/python3*/pydoc_data/*",
)

# The packages are unpacked and not set up: what their scripts would have done is done here.
SET_UP = (
    "for name in $($1/usr/bin/busybox --list); do"
    " [ -e $1/usr/bin/$name ] || [ -e $1/usr/sbin/$name ] || ln -s busybox $1/usr/bin/$name; done",
    "echo root:x:0:0:root:/root:/bin/sh >$1/etc/passwd; echo root:x:0: >$1/etc/group",
    "echo 'hosts: files dns' >$1/etc/nsswitch.conf",
    "if [ -d $1/usr/share/ca-certificates ]; then mkdir -p $1/etc/ssl/certs;"
    " cat $1/usr/share/ca-certificates/mozilla/*.crt >$1/etc/ssl/certs/ca-certificates.crt; fi",
)
COMMON = ("base-files", "busybox-static", "ca-certificates", "netbase", "tzdata")


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
    """The base from Debian: these, and what they depend on."""
    needs: "Image | None" = None
    """What it is built with."""

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
        if self.needs is not None:
            digest.update(self.needs.content(base).encode())
        for file in sorted((HERE / self.directory).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                executable = bool(file.stat().st_mode & 0o100)
                digest.update(f"{file.relative_to(HERE)} {executable}\n".encode())
                digest.update(file.read_bytes())
        return digest.hexdigest()

    def base_recipe(self, base: str) -> str:
        """What decides what the base is."""
        return self.official if base == "registry" else " ".join(bootstrap_options(self.packages))


GO_BUILD = Image(
    "faas-build-go", "go", "Dockerfile.build", "golang:1.26-alpine", (*COMMON, "golang-go")
)
IMAGES = {
    "python": Image(
        "faas-runtime-python", "python", "Dockerfile", "python:3.13-slim", (*COMMON, "python3")
    ),
    "node": Image("faas-runtime-node", "node", "Dockerfile", "node:22-slim", (*COMMON, "nodejs")),
    "go": Image("faas-runtime-go", "go", "Dockerfile", "alpine:3", COMMON, needs=GO_BUILD),
}


class Builder:
    """Builds images one by one or several at once, saying what it does."""

    def __init__(self, base: str, force: bool) -> None:
        """Bases from `registry` or `debian`; `auto` finds out."""
        self._base = base
        self._force = force
        self._deciding = threading.Lock()
        self._started = time.monotonic()

    def build(self, image: Image) -> None:
        """Make sure that `image` and what it needs are there and current."""
        if image.needs is not None:
            self.build(image.needs)
        if not self._force and self._is_current(image):
            self._say(image, "is current")
            return
        base = self._ensure_base(image)
        self._say(image, f"building on {base}")
        self._build(image, base)
        self._say(image, f"is ready, {int(inspect(image.tag, '{{.Size}}')) / 1e6:.0f} MB")

    def _is_current(self, image: Image) -> bool:
        base, content = labels(image.tag)
        return bool(base) and self._base in (base, "auto") and content == image.content(base)

    def _ensure_base(self, image: Image) -> str:
        with self._deciding:
            if self._base == "auto":
                self._say(image, f"asking the registry for {image.official}")
                self._base = "registry" if begins_to_pull(image.official) else "debian"
                if self._base == "debian":
                    self._say(image, "no registry answers: making bases from Debian packages")
        if self._base == "registry":
            self._say(image, f"pulling {image.official}")
            run("docker", "pull", "--quiet", image.official)
            return image.official
        recipe = hashlib.sha256(image.base_recipe("debian").encode()).hexdigest()
        if self._force or labels(image.debian_base)[1] != recipe:
            self._say(image, f"making its base from packages of Debian {SUITE}")
            bootstrap(image, recipe)
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
    with subprocess.Popen(
        ["docker", "pull", reference],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as pull:
        assert pull.stdout is not None
        lines: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=put_lines, args=(pull.stdout, lines), daemon=True)
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


def put_lines(output: Iterable[str], lines: "queue.Queue[str]") -> None:
    """Move all lines to the queue, and an empty one after them."""
    for line in output:
        lines.put(line)
    lines.put("")


def bootstrap_options(packages: tuple[str, ...]) -> list[str]:
    """What `mmdebstrap` is told, for `packages` and what they depend on alone."""
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    hooks = [f"--extract-hook={command}" for command in SET_UP]
    # Unpacked only: no package manager, no shell but busybox, and seconds instead of a minute.
    return ["--variant=extract", f"--include={','.join(packages)}", *excluded, *hooks, SUITE]


def bootstrap(image: Image, recipe: str) -> None:
    """Make `image`'s base from Debian packages, labelled with its recipe."""
    if shutil.which("mmdebstrap") is None:
        raise BuildError(
            "no registry answers, and mmdebstrap is not there to make bases from Debian"
            " packages: install it (apt-get install mmdebstrap), or load the images from"
            " a machine that has them (docker save, docker load)"
        )
    with subprocess.Popen(
        ["mmdebstrap", "--quiet", "--format=tar", *bootstrap_options(image.packages), "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as debian:
        label = f"LABEL {CONTENT_LABEL}={recipe}"
        imported = subprocess.run(
            ["docker", "import", "--change", label, "-", image.debian_base],
            check=False,
            stdin=debian.stdout,
            capture_output=True,
            text=True,
        )
        assert debian.stderr is not None
        complaint = debian.stderr.read().decode(errors="replace")
    if debian.returncode != 0:
        # What was imported of a tarball that broke off is no base.
        subprocess.run(
            ["docker", "image", "rm", image.debian_base], check=False, capture_output=True
        )
        raise BuildError(f"mmdebstrap failed:\n{complaint[-4000:]}")
    if imported.returncode != 0:
        raise BuildError(f"docker import failed:\n{imported.stderr[-4000:]}")


def labels(reference: str) -> tuple[str, str]:
    """The labels of an image's base and content; empty where it has none or is not there."""
    names = (BASE_LABEL, CONTENT_LABEL)
    template = "|".join(f'{{{{index .Config.Labels "{name}"}}}}' for name in names)
    try:
        base, _, content = inspect(reference, template).partition("|")
    except BuildError:
        return "", ""
    return base, content


def inspect(reference: str, template: str) -> str:
    """What `docker image inspect` says. Raises BuildError."""
    return run("docker", "image", "inspect", "--format", template, reference)


def run(*command: str) -> str:
    """What a command prints. Raises BuildError if it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        complaint = (done.stdout + done.stderr)[-4000:]
        raise BuildError(f"{' '.join(command[:3])} failed:\n{complaint}")
    return done.stdout.strip()


def check_engine() -> None:
    """Raises BuildError where there is nothing to build with."""
    if shutil.which("docker") is None:
        raise BuildError(
            "the docker command is not there: install Docker, or use"
            " FAAS_WORKER_RUNTIME=process, which needs no images"
        )
    try:
        run("docker", "version", "--format", "{{.Server.Version}}")
    except BuildError as error:
        raise BuildError(
            f"no Docker engine answers: is it running, and may you use it?\n{error}"
        ) from None


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Build the runtime images.")
    parser.add_argument("images", nargs="*", choices=[*IMAGES, []], help="default: all")
    parser.add_argument(
        "--base",
        choices=["auto", "registry", "debian"],
        default="auto",
        help="where bases come from; auto: a registry if one answers, else Debian packages",
    )
    parser.add_argument("--force", action="store_true", help="build what is current too")
    arguments = parser.parse_args()
    builder = Builder(arguments.base, arguments.force)
    failed = False
    try:
        check_engine()
    except BuildError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    with ThreadPoolExecutor() as pool:
        building = [pool.submit(builder.build, IMAGES[name]) for name in arguments.images or IMAGES]
        for future in building:
            try:
                future.result()
            except BuildError as error:
                print(f"images: {error}", file=sys.stderr)
                failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
