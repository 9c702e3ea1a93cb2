"""One round of our app on Flower's simulation engine, in a process of its own.

Ray leaves files and child processes to its own shutdown; here they end with this process.
Arguments: the study's JSON file and the data path with ``{partition}``. Prints the update's norm.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from larrey_client.app import make_app
from larrey_client.arrays import flat_of, record_of
from larrey_protocol.models import initial_parameters, model_layout
from larrey_protocol.study import Study


def simulate(study: Study, data: str) -> float:
    """Return the norm of the update that one simulated node makes of the starting point."""
    layout, updates = model_layout(study), []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        pause = threading.Event()
        while not (nodes := list(grid.get_node_ids())):
            pause.wait(0.02)
        arrays = record_of(layout, initial_parameters(study))
        config = ConfigRecord({"study": study.model_dump_json(by_alias=True), "round": 1})
        content = RecordDict({"arrays": arrays, "config": config})
        message = Message(content, dst_node_id=nodes[0], message_type="train")
        updates.extend(grid.send_and_receive([message], timeout=60))

    run_simulation(
        server_app=server,
        client_app=make_app(data=data),
        num_supernodes=1,
        # One node needs one actor; Ray would start one for every core.
        backend_config={
            "init_args": {"num_cpus": 1},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    (reply,) = updates
    arrays = reply.content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    return float(np.linalg.norm(flat_of(arrays, layout)))


if __name__ == "__main__":
    found = simulate(Study.model_validate_json(Path(sys.argv[1]).read_text()), sys.argv[2])
    sys.stdout.write(f"norm {found}\n")
