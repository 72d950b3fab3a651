"""The servers of faas-mesh: one package per process.

Modules beside the packages are shared by two of them or more. Packages meet over
gRPC or the queue only; none imports a sibling.
"""

import os

# A part that forks does it to run another program. gRPC's handlers of forks are for
# children that go on with gRPC; they crash some of the others, and are read of when it
# is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
