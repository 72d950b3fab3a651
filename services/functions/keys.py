"""Under which keys code is kept, and what was built of it."""

import re
from dataclasses import dataclass
from uuid import UUID

from services import ids
from services.storage import WRITING

FUNCTIONS = "functions"
UPLOADS = "uploads"
UPLOAD = "upload-"
"""What ids of uploads begin with."""

_KEY = re.compile(
    rf"({FUNCTIONS}|{UPLOADS})/([^/]+)/([0-9a-f]{{64}})/(?:code|binary-[0-9a-f-]+|{WRITING}[^/]*)"
)


@dataclass(frozen=True)
class Owner:
    """What a key says of its object: whose code it is or is built of, and its checksum."""

    folder: str
    id: UUID
    sha256: str


def of_function(function: UUID, sha256: str) -> str:
    """The key of code that versions of a function have."""
    return f"{FUNCTIONS}/{ids.show(ids.FUNCTION, function)}/{sha256}/code"


def of_binary(function: UUID, code_sha256: str, grant: UUID) -> str:
    """The key of what the holder of a grant built of a function's code."""
    return f"{FUNCTIONS}/{ids.show(ids.FUNCTION, function)}/{code_sha256}/binary-{grant}"


def of_upload(upload: UUID, sha256: str) -> str:
    """The key of code that waits for a function to name it."""
    return f"{UPLOADS}/{ids.show(UPLOAD, upload)}/{sha256}/code"


def owner(key: str) -> Owner | None:
    """Whose the object of this key is; None: not one of ours."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    folder, shown, sha256 = match.groups()
    uuid = ids.parse(ids.FUNCTION if folder == FUNCTIONS else UPLOAD, shown)
    return None if uuid is None else Owner(folder, uuid, sha256)
