"""Flower, hosted in the coordinator: its own state and Fleet servicer behind our gRPC port.

The only package of the server that imports flwr; `names` lists every private symbol it uses.
Flower's state is disposable and lives in memory; what must survive is in the journal.
Importing this package first switches off everything in flwr that would speak to the outside.
"""

from __future__ import annotations

import os

__all__ = ["ENVIRONMENT"]

# Read by flwr when it is imported.
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",  # else telemetry.flower.ai
    "FLWR_DISABLE_UPDATE_CHECK": "1",  # else api.flower.ai
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # nothing is installed at run time
    "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": str(2 << 20),  # measured best for 100 MB messages
}
os.environ.update(ENVIRONMENT)
