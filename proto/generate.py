"""Generate everything that is made from the protos.

* `faas/v1/`: Python stubs with types, imported as the protos' own path.
* `faas/_vendor/buf/validate/`: the stub of protovalidate's options.
* `services/gateway/descriptors.binpb`: what Envoy transcodes by.
* `services/gateway/openapi.json`: the OpenAPI document that the gateway serves.

Run it by `make protos`. `--out DIR` writes below DIR instead, so that a test can
prove what is checked in to be current.
"""

import argparse
import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
BIN = Path(sys.executable).parent
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"


def generate(out: Path) -> None:
    """Write all generated files below `out`, laid out as in the repository."""
    vendor = out / "faas" / "_vendor"
    descriptors = out / "services" / "gateway" / "descriptors.binpb"
    for directory in (out / "faas" / "v1", vendor, descriptors.parent):
        directory.mkdir(parents=True, exist_ok=True)
    ours = sorted(str(p.relative_to(PROTO)) for p in PROTO.glob("faas/v1/*.proto"))
    _protoc(
        *(f"--{plugin}_out={out}" for plugin in ("python", "mypy", "grpc_python", "mypy_grpc")),
        *ours,
    )
    _protoc(
        f"--descriptor_set_out={descriptors}",
        "--include_imports",
        "--include_source_info",
        # Errors carry these as Any: to print one, Envoy has to know it.
        "google/rpc/error_details.proto",
        "google/rpc/status.proto",
        *ours,
    )
    _protoc(f"--python_out={vendor}", f"--mypy_out={vendor}", "buf/validate/validate.proto")
    _openapi(descriptors)


def _openapi(descriptors: Path) -> None:
    # Only now: it reads options by the stubs that were just made.
    sys.path.insert(0, str(ROOT))
    from services.gateway.openapi import dump

    descriptors.with_name("openapi.json").write_text(dump(descriptors.read_bytes()))


def _protoc(*arguments: str) -> None:
    include = [f"-I{path}" for path in (PROTO, PROTO / "third_party", WELL_KNOWN)]
    plugins = [f"--plugin={p}={BIN / p}" for p in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    if protoc.main(["protoc", *plugins, *include, *arguments]) != 0:
        sys.exit("protoc failed: what it printed above says where")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=ROOT, help="write below this folder")
    generate(parser.parse_args().out)
