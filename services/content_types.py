"""Content types of payloads and results, as headers carry them (RFC 9110, 8.3)."""

import re

JSON = "application/json"
BYTES = "application/octet-stream"
MAX_CHARACTERS = 256

_PART = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Parameters may be anything that is visible: what they mean is for their readers.
_CONTENT_TYPE = re.compile(rf"{_PART}/{_PART}(?:[ \t]*;[\t -~]*)?")


def is_content_type(text: str) -> bool:
    """Whether `text` is a content type that can stand in a header."""
    return len(text) <= MAX_CHARACTERS and _CONTENT_TYPE.fullmatch(text) is not None
