"""The web UI's files: built from `ui/`, checked in under `static/`, served from memory.

What the page shows was written by others (names, logs, results), so the policy
lets it run and load nothing but these files, and talk to no other server.
"""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

INDEX = "index.html"

# Where the files are, but for the index, which is at `/`.
PREFIX = "/ui/"

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

# A file below `assets/` has its content's hash in its name; the others may change.
_FOR_GOOD = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"

_TYPES = {".md": "text/markdown", ".woff2": "font/woff2", ".js": "text/javascript"}
_TEXTS = ("text/", "image/svg")


@dataclass(frozen=True)
class StaticFile:
    """One file, as it is sent."""

    body: bytes
    compressed: bytes | None
    content_type: str
    etag: str
    cache_control: str

    def answer(self, request: web.Request) -> web.Response:
        """The file, or that what the caller has is the same."""
        headers = HEADERS | {
            "Cache-Control": self.cache_control,
            "ETag": f'"{self.etag}"',
            "Vary": "Accept-Encoding",
        }
        if any(known.value in (self.etag, "*") for known in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        body = self.body
        if self.compressed and "gzip" in request.headers.get("Accept-Encoding", ""):
            body = self.compressed
            headers["Content-Encoding"] = "gzip"
        headers["Content-Type"] = self.content_type
        return web.Response(body=body, headers=headers)


def load(directory: Path) -> dict[str, StaticFile]:
    """The files below `directory`, by the path that they are served at."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {_served_at(path.relative_to(directory).as_posix()): _read(path) for path in files}


def _served_at(name: str) -> str:
    return "/" if name == INDEX else PREFIX + name


def _read(path: Path) -> StaticFile:
    body = path.read_bytes()
    content_type = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or ""
    is_text = content_type.startswith(_TEXTS)
    return StaticFile(
        body=body,
        compressed=gzip.compress(body, mtime=0) if is_text else None,
        content_type=f"{content_type}; charset=utf-8" if is_text else content_type,
        etag=hashlib.sha256(body).hexdigest()[:32],
        cache_control=_FOR_GOOD if path.parent.name == "assets" else _ASK_AGAIN,
    )
