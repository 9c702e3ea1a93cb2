"""The small parts by themselves: presence, doorbell, feed, settings, registry, probes, claims."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_protocol.errors import FileError, PortBusy, Refusal, UsageError
from larrey_server.claims import check_claims, true_epsilon
from larrey_server.doorbell import Doorbell
from larrey_server.feed import Feed
from larrey_server.http import Probes
from larrey_server.metrics import Metrics
from larrey_server.presence import Presence
from larrey_server.registry import Registry
from larrey_server.settings import load_coordinator, load_operator, split_address
from tests.protocol.samples import study
from tests.server.peers import Folder


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 20)), max_size=20))
def test_a_site_is_up_exactly_while_it_was_heard_within_the_limit(
    contacts: list[tuple[str, float]],
) -> None:
    now, last = [0.0], {}
    presence = Presence(lambda: now[0], silence_s=30.0)
    for site, wait in contacts:
        now[0] += wait
        presence.silent()
        assert presence.heard(site) == (site not in last or now[0] - last[site] > 30)
        last[site] = now[0]
    presence.silent()
    assert set(presence.up()) == {s for s, at in last.items() if now[0] - at <= 30}


def test_a_ring_before_the_wait_is_not_lost() -> None:
    bell = Doorbell()
    guest, heard = bell.enter(), bell.rings
    bell.ring()
    begun = time.monotonic()
    bell.wait(guest, heard, timeout_s=20)
    assert time.monotonic() - begun < 10


def test_a_displaced_guest_does_not_wait() -> None:
    bell = Doorbell()
    first = bell.enter()
    bell.enter()
    begun = time.monotonic()
    bell.wait(first, bell.rings, timeout_s=20)
    assert time.monotonic() - begun < 10
    assert bell.is_displaced(first)


def test_a_slow_watcher_loses_the_oldest_news_only() -> None:
    feed = Feed()
    with feed.watch("s") as events:
        for number in range(1500):
            feed.publish("s", {"n": number})
        assert events.qsize() == 1000
        assert events.get() == {"n": 500}


@pytest.mark.parametrize("text", ["localhost", "localhost:", ":1", "host:99999", "host:x"])
def test_an_address_without_host_or_port_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="bad-address"):
        split_address(text)


COORDINATOR = """
[identity]
certificate = "server.crt"
key = "server.key"
authority = "ca.crt"
signing_key = "signing.pem"
[consortium]
key = "{key}"
[[sites]]
name = "alpha"
certificate = "alpha.crt"
key = "{key}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder.make(tmp_path_factory.mktemp("federation"))


def written(folder: Folder, text: str) -> Path:
    path = folder.path / "coordinator.toml"
    path.write_text(text.format(key=folder.consortium.public))
    return path


def test_paths_are_relative_to_the_settings_file(folder: Folder) -> None:
    settings = load_coordinator(written(folder, COORDINATOR))
    assert settings.coordinator.state == folder.path / "state"
    assert settings.sites[0].certificate == folder.path / "alpha.crt"
    assert set(Registry.from_settings(settings).sites) == {"alpha"}


def test_an_unknown_key_names_the_nearest_valid_one(folder: Folder) -> None:
    with pytest.raises(FileError, match=r"unknown key 'sertificate'.*'certificate'"):
        load_coordinator(written(folder, COORDINATOR.replace("cert", "sert", 1)))


def test_a_file_that_is_not_there_is_named(folder: Folder) -> None:
    with pytest.raises(FileError, match=r"nowhere\.pem"):
        load_coordinator(written(folder, COORDINATOR.replace("signing.pem", "nowhere.pem")))


def test_two_sites_with_one_certificate_are_refused(folder: Folder) -> None:
    twice = COORDINATOR + '[[sites]]\nname = "beta"\ncertificate = "alpha.crt"\nkey = "{key}"\n'
    with pytest.raises(FileError, match="key-listed-twice"):
        Registry.from_settings(load_coordinator(written(folder, twice)))


def test_an_operator_file_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LARREY_OPERATOR", raising=False)
    with pytest.raises(UsageError, match="no-operator-file"):
        load_operator(None)


def read(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_probes_and_metrics_are_served_and_nothing_else() -> None:
    ready, metrics = [False], Metrics(lambda: 7.0)
    metrics.study_known("heart", ["alpha"], quorum=1, rounds=3, deadline_s=60.0)
    probes = Probes("127.0.0.1:0", expose=metrics.expose, is_ready=lambda: ready[0])
    try:
        assert read(probes.port, "/livez")[0] == 200
        assert read(probes.port, "/readyz")[0] == 503
        ready[0] = True
        assert read(probes.port, "/readyz")[0] == 200
        assert read(probes.port, "/metrics?x")[0] == 404
        text = read(probes.port, "/metrics")[1].decode()
    finally:
        probes.stop()
    for line in (
        'larrey_build_info{flwr_version="1.41.0",',
        'larrey_run_active{study="heart"} 0.0',
        'larrey_round_number{study="heart"} 0.0',
        'larrey_rounds_total{outcome="completed",study="heart"} 0.0',
        'larrey_sites_available{study="heart"} 0.0',
        'larrey_sites_excluded{study="heart"} 0.0',
        'larrey_run_gathering{study="heart"} 0.0',
        'larrey_round_deadline_seconds{study="heart"} 60.0',
        'larrey_updates_late_total{site="alpha",study="heart"} 0.0',
        'larrey_coordinator_site_window_opens_timestamp_seconds{site="alpha"} 0.0',
        'larrey_updates_received_total{site="alpha",study="heart"} 0.0',
        'larrey_auth_failures_total{reason="unknown_key"} 0.0',
        'larrey_coordinator_site_last_seen_timestamp_seconds{site="alpha",study="heart"} 7.0',
    ):
        assert line in text


def test_a_busy_metrics_port_is_named() -> None:
    first = Probes("127.0.0.1:0", expose=bytes, is_ready=bool)
    try:
        with pytest.raises(PortBusy, match=f"127.0.0.1:{first.port}"):
            Probes(f"127.0.0.1:{first.port}", expose=bytes, is_ready=bool)
    finally:
        first.stop()


def test_epsilon_covers_the_spare_rounds() -> None:
    with_spares = true_epsilon(study(training__rounds=3, training__spare_rounds=3))
    without = true_epsilon(study(training__rounds=3, training__spare_rounds=0))
    assert with_spares is not None
    assert without is not None
    assert with_spares > without


def test_a_claim_below_the_true_epsilon_is_impossible() -> None:
    true = true_epsilon(study())
    assert true is not None
    assert check_claims(study(privacy__epsilon=true * 1.01)) == true
    with pytest.raises(Refusal, match="epsilon-impossible"):
        check_claims(study(privacy__epsilon=true * 0.99))


def test_a_delta_that_could_publish_a_patient_is_impossible() -> None:
    with pytest.raises(Refusal, match="epsilon-impossible"):
        check_claims(study(privacy__delta=0.005))


def test_an_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="fedprox"):
        check_claims(study(training__strategy="fedprocks"))


def test_codes_that_sites_choose_cannot_fill_the_metrics() -> None:
    metrics = Metrics()
    metrics.study_known("heart", ["alpha"], quorum=1, rounds=3, deadline_s=60.0)
    for number in range(1000):
        metrics.update_rejected("heart", "alpha", f"code-{number}")
    lines = metrics.expose().decode().splitlines()
    assert len([line for line in lines if line.startswith("larrey_updates_rejected_total{")]) == 65
    assert any('reason="other"' in line and line.endswith(" 945.0") for line in lines)
