"""The three services and the code that they share.

``engine``, ``roles`` and ``access`` each own one Vault path family and never import one another; ``common`` knows none
of them (import-linter, pyproject.toml).
"""

import os

# gRPC's core reads this when it is imported, before which this runs. It writes lines of its own to stderr, where ours
# are JSON: its errors are worth that, a line for each client that does not get through TLS is not. An operator who
# looks for the reason sets INFO.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
