"""A real trainer process: what it computes, what it cannot do, how it fails."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from larrey_client.data.cohort import load_cohort
from larrey_client.data.identity import patient_hash, unpack_hashes
from larrey_client.data.reading import Reading
from larrey_client.frames import memory_file, seal
from larrey_client.trainer_link import TrainerLink, TrainTask
from larrey_client.trainer_process import Limits
from larrey_protocol.envelope import check_update
from larrey_protocol.errors import DataError, LarreyError
from larrey_protocol.models import initial_parameters, model_layout, phase_layout
from larrey_protocol.norms import norm_bound
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack

pytestmark = pytest.mark.system
LIMIT_S = 60.0


def _train(link: TrainerLink, study: Study, flat: np.ndarray, *, timeout_s: float = LIMIT_S):
    """Return the update as a flat vector; what leaves must pass the border's own check."""
    layout = model_layout(study)
    model = seal(memory_file("model", [pack(layout, flat)]))
    try:
        task = TrainTask(study.digest, 1, "train", "alpha")
        update = link.train(task, model, timeout_s=timeout_s)
    finally:
        os.close(model)
    try:
        check_update(update, layout, norm_bound=norm_bound(study, "alpha"))
        return np.frombuffer(os.pread(update, layout.nbytes, 0), "<f4", offset=len(layout.header))
    finally:
        os.close(update)


def _until(holds: Callable[[], bool], limit_s: float = 10.0) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if holds():
            return True
        threading.Event().wait(0.01)
    return False


def _gradient(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the mean gradient of the logistic loss; the last element belongs to the bias."""
    residual = 1 / (1 + np.exp(-(x @ w[:-1] + w[-1]))) - y
    return np.append(residual @ x, residual.sum()) / len(y)


def _by_hand(study: Study, table, start: np.ndarray, mu: float = 0.0) -> np.ndarray:
    """Return the plain update of H steps with momentum, written out in numpy."""
    cohort, training = load_cohort(table, study.contract), study.file.training
    w, velocity = start.astype(np.float64), np.zeros(len(start))
    for _ in range(training.local_steps):
        gradient = _gradient(w, cohort.features.astype(float), cohort.label) + mu * (w - start)
        velocity = training.momentum * velocity + gradient
        w = w - training.learning_rate * velocity
    return w - start


@pytest.mark.parametrize(
    ("training", "mu"),
    [
        ({"local_steps": 1}, 0.0),
        ({"local_steps": 3, "momentum": 0.9}, 0.0),
        ({"local_steps": 3, "strategy": "fedprox", "parameters": {"mu": 0.5}}, 0.5),
    ],
)
def test_a_round_without_privacy_equals_numpy(make_study, table, training, mu, own_link):
    study = make_study(**training)
    start = np.linspace(-0.3, 0.4, model_layout(study).size).astype(np.float32)
    assert own_link.load(study, site="alpha", data=table).units == 12
    # float32 forward and backward passes against float64: a few 1e-7 a step
    np.testing.assert_allclose(
        _train(own_link, study, start), _by_hand(study, table, start, mu), atol=3e-6
    )


def test_private_updates_are_finite_and_never_the_same(make_study, private, table, own_link):
    study = make_study(private)
    own_link.load(study, site="alpha", data=table)
    updates = [_train(own_link, study, initial_parameters(study)) for _ in range(3)]
    assert all(np.isfinite(u).all() for u in updates)
    assert len({u.tobytes() for u in updates}) == 3


@pytest.fixture(scope="module")
def own_link(tmp_path_factory):
    """Give one warm trainer for the tests of Larrey's own app."""
    link = TrainerLink.start(Limits(readable=(tmp_path_factory.getbasetemp(),)))
    yield link
    link.stop()


def test_a_standard_app_answers_weights_and_gives_their_difference(
    make_study, table, apps, cold_link
):
    study = make_study(app="shift")
    cold_link.load(study, site="alpha", data=table, app=f"{apps}:plus_one")
    update = _train(cold_link, study, np.full(5, 2.0, np.float32))
    assert update.tolist() == [1.0] * 5


def _call(link: TrainerLink, study: Study, phase: str) -> list[float]:
    """Return what a handler tells of a model of twos."""
    layout = phase_layout(study, phase)
    flat = np.full(model_layout(study).size, 2.0, np.float32)
    model = seal(memory_file("model", [pack(model_layout(study), flat)]))
    try:
        task = TrainTask(study.digest, 1, phase, "alpha")
        answer = link.train(task, model, timeout_s=LIMIT_S)
    finally:
        os.close(model)
    try:
        data = os.pread(answer, 1 << 16, 0)
    finally:
        os.close(answer)
    assert data[: len(layout.header)] == layout.header
    return np.frombuffer(data, "<f4", offset=len(layout.header)).tolist()


@pytest.mark.parametrize(("phase", "told"), [("evaluate", [0.25, 12.0]), ("query", [2.0, 4.0])])
def test_other_handlers_tell_the_declared_metrics_as_they_are_and_nothing_else(
    make_study, table, apps, cold_link, phase, told
):
    study = make_study(app="judge", calls=["train", phase], metrics=["loss", "count"])
    cold_link.load(study, site="alpha", data=table, app=f"{apps}:judges")
    assert _call(cold_link, study, phase) == told


@pytest.mark.parametrize(
    ("attribute", "metric", "code"),
    [
        ("judges", "accuracy", "reply-wrong-metrics"),  # does not tell it
        ("judges", "curve", "reply-wrong-metrics"),  # a list of numbers
        ("plus_one", "loss", "app-failed"),  # has no such handler
    ],
)
def test_an_app_that_cannot_tell_a_metric_is_named_by_code(
    make_study, table, apps, cold_link, attribute, metric, code
):
    study = make_study(app="judge", calls=["train", "evaluate"], metrics=[metric])
    cold_link.load(study, site="alpha", data=table, app=f"{apps}:{attribute}")
    with pytest.raises(LarreyError) as caught:
        _call(cold_link, study, "evaluate")
    assert caught.value.code == code


def test_the_trainer_has_no_network_no_secrets_and_no_needless_torch(
    make_study, table, apps, monkeypatch
):
    monkeypatch.setenv("LARREY_SECRET", "x")
    link = TrainerLink.start(warm=False)
    study = make_study(app="limits")
    link.load(study, site="alpha", data=table, app=f"{apps}:tells_limits")
    told = float(_train(link, study, np.zeros(5, np.float32))[0])
    if not {"namespace", "filter"} & set(link.isolation.stands):
        pytest.skip("this kernel grants neither a network namespace nor a filter")
    assert 0 < told < 100  # an errno: no connection, no torch, no secrets
    link.stop()


def test_the_trainer_cannot_make_a_socket_for_the_system_log(make_study, table, apps, cold_link):
    study = make_study(app="pairs")
    cold_link.load(study, site="alpha", data=table, app=f"{apps}:pairs")
    told = float(_train(cold_link, study, np.zeros(5, np.float32))[0])
    if "filter" in cold_link.isolation.missing:
        pytest.skip("this kernel grants no filter")
    assert told == errno.EPERM


def test_the_trainer_leaves_no_core_and_cannot_be_traced(make_study, table, cold_link):
    cold_link.load(make_study(), site="alpha", data=table)
    with open(f"/proc/{cold_link.pid}/limits", encoding="ascii") as file:
        core = next(line for line in file if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    with open(f"/proc/{cold_link.pid}/status", encoding="ascii") as file:
        assert "NoNewPrivs:\t1" in file.read()


@pytest.mark.parametrize(
    ("attribute", "code"),
    [
        ("dies", "trainer-crashed"),
        ("hangs", "trainer-timeout"),
        ("raises", "app-failed"),
        ("talks", "app-failed"),
        ("renames", "reply-wrong-tensors"),
    ],
)
def test_a_bad_app_costs_one_answer_and_the_next_use_works(
    make_study, table, apps, cold_link, attribute, code
):
    bad, good = make_study(app="bad"), make_study(app="good")
    cold_link.load(bad, site="alpha", data=table, app=f"{apps}:{attribute}")
    with pytest.raises(LarreyError) as caught:
        _train(cold_link, bad, np.zeros(5, np.float32), timeout_s=2.0)
    assert caught.value.code == code
    assert "patient's value" not in str(caught.value)
    cold_link.load(good, site="alpha", data=table, app=f"{apps}:plus_one")
    assert _train(cold_link, good, np.zeros(5, np.float32)).tolist() == [1.0] * 5


def test_a_killed_trainer_is_replaced_and_loads_its_study_again(make_study, table, apps, cold_link):
    study = make_study(app="shift")
    cold_link.load(study, site="alpha", data=table, app=f"{apps}:plus_one")
    first = cold_link.pid
    os.kill(first, signal.SIGKILL)
    assert _until(lambda: not cold_link.alive)
    assert _train(cold_link, study, np.zeros(5, np.float32)).tolist() == [1.0] * 5
    assert cold_link.pid != first


def test_stop_from_another_thread_ends_a_training(make_study, table, apps, cold_link):
    study = make_study(app="bad")
    cold_link.load(study, site="alpha", data=table, app=f"{apps}:hangs")
    stopper = threading.Timer(0.3, cold_link.stop)
    stopper.start()
    with pytest.raises(LarreyError, match="trainer-stopped"):
        _train(cold_link, study, np.zeros(5, np.float32))
    stopper.join()
    assert not cold_link.alive


@pytest.mark.parametrize(
    ("garbage", "told"), [(b"\xff\xff\xff\xff", 1), (b"\x00\x00\x00\x02[]", 1), (b"", 0)]
)
def test_the_trainer_ends_on_a_broken_frame_or_a_hang_up(cold_link, garbage, told):
    process = cold_link._process
    assert process.greeted.wait(10)
    process.socket.sendall(garbage)
    process.socket.shutdown(1)
    assert _until(lambda: not cold_link.alive)
    assert process._popen.returncode == told


def test_the_trainer_dies_with_its_agent():
    script = textwrap.dedent("""
        import sys
        from larrey_client.trainer_link import TrainerLink
        link = TrainerLink.start(warm=False)
        print(link.pid, flush=True)
        sys.stdin.read()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as agent:
        trainer = int(agent.stdout.readline())
        assert _until(lambda: "NoNewPrivs:\t1" in Path(f"/proc/{trainer}/status").read_text())
        os.kill(trainer, signal.SIGSTOP)  # it cannot notice the hang-up: the kernel must end it
        agent.kill()
    assert _until(lambda: not _runs(trainer))


def _runs(pid: int) -> bool:
    """Return whether the process lives; a zombie that nobody reaps does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_data_that_break_the_contract_are_refused_with_the_rules_code(make_study, table, cold_link):
    table.write_text("pid,age,cp,sick\na,1,none,0\n", encoding="utf-8")
    with pytest.raises(DataError, match="too-few-units"):
        cold_link.load(make_study(), site="alpha", data=table)
    with pytest.raises(DataError, match="data-missing"):
        cold_link.load(make_study(), site="alpha", data=table.with_name("none.csv"))


def test_loading_tells_what_was_read_and_who_was_left_out(make_study, table, cold_link):
    study = make_study()
    all_of_them = cold_link.load(study, site="alpha", data=table, reading=Reading(b"key"))
    out = frozenset({patient_hash("p3", b"key"), patient_hash("nobody", b"key")})
    fewer = cold_link.load(study, site="alpha", data=table, reading=Reading(b"key", out))
    assert (all_of_them.units, all_of_them.excluded) == (12, 0)
    assert (fewer.units, fewer.excluded) == (11, 1)
    assert fewer.content == all_of_them.content  # of what was read, before anybody was left out
    table.write_text(table.read_text(encoding="utf-8") + "p12,50,none,1,x\n", encoding="utf-8")
    assert cold_link.load(study, site="alpha", data=table).content != fewer.content


def test_a_scan_tells_who_is_in_a_source_and_disturbs_no_study(make_study, table, apps, cold_link):
    study = make_study(app="shift")
    cold_link.load(study, site="alpha", data=table, app=f"{apps}:plus_one")
    hashes = cold_link.scan(table, "pid", b"key")
    assert unpack_hashes(hashes) == {patient_hash(f"p{i}", b"key") for i in range(12)}
    assert _train(cold_link, study, np.zeros(5, np.float32)).tolist() == [1.0] * 5
    with pytest.raises(DataError, match="column-missing"):
        cold_link.scan(table, "nobody", b"key")


def test_a_standard_app_is_refused_where_patients_must_be_left_out(
    make_study, table, apps, cold_link
):
    reading = Reading(b"key", frozenset({patient_hash("p3", b"key")}))
    study = make_study(app="shift")
    with pytest.raises(LarreyError, match="app-reads-all-rows"):
        cold_link.load(study, site="alpha", data=table, app=f"{apps}:plus_one", reading=reading)


def test_rows_that_changed_since_they_were_loaded_are_not_trained_on(
    make_study, table, apps, cold_link
):
    study = make_study(app="shift")
    cold_link.load(study, site="alpha", data=table, app=f"{apps}:plus_one")
    table.write_text(table.read_text(encoding="utf-8") + "p12,50,none,1,x\n", encoding="utf-8")
    os.kill(cold_link.pid, signal.SIGKILL)  # the fresh process reads again
    assert _until(lambda: not cold_link.alive)
    with pytest.raises(DataError, match="data-changed"):
        _train(cold_link, study, np.zeros(5, np.float32))


def test_loading_the_same_again_asks_nobody_and_a_changed_file_is_checked(
    make_study, table, cold_link
):
    study = make_study()
    assert cold_link.load(study, site="alpha", data=table).units == 12
    os.kill(cold_link.pid, signal.SIGSTOP)  # it could not answer
    assert cold_link.load(study, site="alpha", data=table).units == 12
    os.kill(cold_link.pid, signal.SIGCONT)
    table.write_text("pid,age,cp,sick\na,1,none,0\n", encoding="utf-8")
    with pytest.raises(DataError, match="too-few-units"):
        cold_link.load(study, site="alpha", data=table)


def test_a_model_that_is_not_the_studys_is_refused(make_study, table, apps, cold_link):
    study = make_study(app="shift")
    cold_link.load(study, site="alpha", data=table, app=f"{apps}:plus_one")
    model = memory_file("model", [b"\x02\x00\x00\x00\x00\x00\x00\x00{}"])
    with pytest.raises(LarreyError, match="model-malformed"):
        cold_link.train(TrainTask(study.digest, 1, "train", "alpha"), model, timeout_s=LIMIT_S)
    os.close(model)


def test_a_study_that_was_not_loaded_is_not_trained(make_study, cold_link):
    with pytest.raises(LarreyError, match="study-not-loaded"):
        _train(cold_link, make_study(), np.zeros(5, np.float32))


def test_an_app_that_is_not_there_is_refused_at_loading(make_study, table, cold_link):
    with pytest.raises(LarreyError, match="app-not-found"):
        cold_link.load(make_study(app="x"), site="alpha", data=table, app="no_such_module:app")


def test_the_agents_side_imports_neither_torch_nor_numpy():
    code = (
        "import sys, larrey_client.trainer_link;"
        "sys.exit(len({'torch', 'numpy', 'flwr', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
