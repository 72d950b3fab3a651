"""Generated stubs of `proto/faas/v1`. Made by `make protos`; never edited by hand.

The stubs import `buf.validate.validate_pb2`, which no package on PyPI ships any
more (protovalidate dropped it in 2.0). A copy travels in `faas/_vendor`, last on
the path, so that another installed one is preferred: docs/adr/0002.
"""

import sys
from pathlib import Path

_VENDOR = str(Path(__file__).parent.parent / "_vendor")
if _VENDOR not in sys.path:
    sys.path.append(_VENDOR)
