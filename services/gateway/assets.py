"""Files that the gateway reads: beside the code in a wheel, at home in a clone."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent
_PACKAGED = _HERE.parent / "assets" / "envoy"
_CLONE = _HERE.parent.parent / "deploy" / "envoy"

DESCRIPTORS = _HERE / "descriptors.binpb"
OPENAPI = _HERE / "openapi.json"
STATIC = _HERE / "static"


def envoy_directory() -> Path:
    """Where `envoy.yaml` is."""
    return _PACKAGED if _PACKAGED.is_dir() else _CLONE
