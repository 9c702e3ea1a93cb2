"""The peer: Flower 1.41's deployment engine as shipped, with a client that does nothing.

SuperLink, SuperNodes and apps are Flower's own programs with Flower's defaults; only telemetry and
the update check are switched off, as the machine may have no way out.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from larrey_lab.federation.workspace import free_port

__all__ = ["DP_CLIENT", "NOOP_CLIENT", "seconds_per_round"]

_BIN = Path(sys.executable).parent

_PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "noop"
version = "1.0.0"
description = ""
license = {{ file = "LICENSE" }}
dependencies = ["flwr>=1.41.0"]
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "bench"
fab-format-version = 1
flwr-version-target = "1.41.0"
[tool.flwr.app.components]
serverapp = "noop.server:app"
clientapp = "noop.client:app"
[tool.flwr.app.config]
out = "{out}"
rounds = {rounds}
nodes = {nodes}
params = {params}
"""

NOOP_CLIENT = """
from flwr.app import Message
from flwr.clientapp import ClientApp
app = ClientApp()

@app.train()
def train(message, context):
    return Message(message.content, reply_to=message)
"""

# One full-batch DP-SGD step of a logistic model with Opacus, on a quarter of scikit-learn's table.
DP_CLIENT = """
import numpy as np, torch
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from opacus import PrivacyEngine
from sklearn.datasets import load_breast_cancer
app = ClientApp()

@app.train()
def train(message, context):
    x, y = load_breast_cancer(return_X_y=True)
    part = slice(int(context.node_config["partition-id"]), None, 4)
    x = torch.tensor((x / x.max(0))[part], dtype=torch.float32)
    y = torch.tensor(y[part], dtype=torch.float32)
    flat = torch.tensor(next(iter(message.content["arrays"].values())).numpy())
    model = torch.nn.Linear(30, 1)
    with torch.no_grad():
        model.weight.copy_(flat[:30][None]); model.bias.copy_(flat[30:31])
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=len(x))
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    model, optimizer, data = PrivacyEngine().make_private(
        module=model, optimizer=optimizer, data_loader=data,
        noise_multiplier=10.0, max_grad_norm=1.0,
    )
    for features, label in data:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(features)[:, 0], label)
        loss.backward()
        optimizer.step()
    out = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()
    out = np.concatenate([out, flat.numpy()[31:]])
    return Message(RecordDict({"arrays": ArrayRecord({"flat": Array(out)})}), reply_to=message)
"""

_SERVER = """
import json, time
from pathlib import Path
import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()

@app.main()
def main(grid, context):
    config = context.run_config
    while len(list(grid.get_node_ids())) < config["nodes"]:
        time.sleep(0.1)
    model, seconds = np.random.default_rng(0).random(config["params"], dtype=np.float32), []
    for _ in range(config["rounds"]):
        start = time.perf_counter()
        record = ArrayRecord({"flat": Array(model)})
        nodes = grid.get_node_ids()
        messages = [Message(RecordDict({"arrays": record}), n, "train") for n in nodes]
        replies = list(grid.send_and_receive(messages))
        arrays = [next(iter(r.content["arrays"].values())).numpy() for r in replies]
        assert len(arrays) == config["nodes"]
        model = np.mean(arrays, axis=0) + np.float32(1e-6)
        seconds.append(time.perf_counter() - start)
    Path(config["out"]).write_text(json.dumps(seconds))
"""


def seconds_per_round(
    *, nodes: int, params: int, rounds: int, client: str = NOOP_CLIENT, limit_s: float = 600.0
) -> list[float]:
    """Return the seconds of each round of stock Flower with ``nodes`` SuperNodes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        app = _write_app(folder, client, nodes=nodes, params=params, rounds=rounds)
        return _run(folder, app, nodes, limit_s)


def _run(folder: Path, app: Path, nodes: int, limit_s: float) -> list[float]:
    out, port = folder / "seconds.json", free_port()
    environment = _environment(folder, port)
    processes = [_start(["flower-superlink", "--insecure", "--port", str(port)], environment)]
    try:
        _wait_for(lambda: _listens(port), 60)
        for i in range(nodes):
            arguments = ["--insecure", "--superlink", f"127.0.0.1:{port}"]
            arguments += ["--port", str(free_port())]
            arguments += ["--node-config", f"partition-id={i} num-partitions={nodes}"]
            home = environment | {"FLWR_HOME": str(folder / f"node{i}")}
            processes.append(_start(["flower-supernode", *arguments], home))
        subprocess.run(
            [_BIN / "flwr", "run", str(app), "bench"],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
        )
        _wait_for(out.exists, limit_s)
        return list(json.loads(out.read_text()))
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _write_app(folder: Path, client: str, *, nodes: int, params: int, rounds: int) -> Path:
    app = folder / "app"
    (app / "noop").mkdir(parents=True)
    out = folder / "seconds.json"
    text = _PYPROJECT.format(out=out, rounds=rounds, nodes=nodes, params=params)
    for name, content in {
        "pyproject.toml": text,
        "LICENSE": "Apache-2.0",
        "noop/__init__.py": "",
        "noop/client.py": client,
        "noop/server.py": _SERVER,
    }.items():
        (app / name).write_text(content)
    return app


def _environment(folder: Path, port: int) -> dict[str, str]:
    home = folder / "link"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "127.0.0.1:{port}"\n'
        "insecure = true\n"
    )
    keep = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    return keep | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
    }


def _start(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [_BIN / command[0], *command[1:]],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _wait_for(condition: Callable[[], bool], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"stock Flower did not get ready in {limit_s} s")
        time.sleep(0.1)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    print(seconds_per_round(nodes=int(sys.argv[1]), params=10_000, rounds=int(sys.argv[2])))
