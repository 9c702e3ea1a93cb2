"""A site leaves while a study is paused: it is out with a code, the others go on if enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from larrey_protocol.decisions import Departure
from larrey_protocol.errors import Refusal
from larrey_protocol.signed import Certificate, open_signed, sign
from larrey_protocol.study import Study
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_server.cli import main
from larrey_server.serve import Hub
from tests.protocol.samples import study
from tests.server.peers import Federation, Folder, running, until


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    yield from running(Folder.make(tmp_path / "folder"), tmp_path / "state")


def paused(federation: Federation, quorum: int) -> tuple[str, Study]:
    """Return a study of alpha and beta that is paused after its first round."""
    tiny = study(rounds__quorum=quorum)
    digest = federation.propose(tiny)
    for name in tiny.file.site_names:
        with federation.site(name) as site:
            assert site.approve(digest).recorded
    federation.launch(digest)
    with federation.operator() as operator:
        operator.command(digest, "pause")
    for name in tiny.file.site_names:
        with federation.site(name) as site:
            assert site.answer(site.work(), tiny).accepted
    until(lambda: state(federation, digest) == "paused")
    return digest, tiny


def state(federation: Federation, digest: str) -> str:
    with federation.operator() as operator:
        return str(operator.find(digest)["state"])


def depart(federation: Federation, name: str) -> None:
    """Let a site say, under its own key, that it leaves."""
    with federation.site(name) as site:
        signed = sign(Departure(site=name, at=1.0), site.key)
        assert site.studies.Tell(wire.TellRequest(document=signed.to_bytes())).recorded
    until(lambda: name not in federation.hub.coordinator.registry.sites)


def resume(federation: Federation, digest: str) -> None:
    with federation.operator() as operator:
        operator.command(digest, "resume")


def finish(federation: Federation, digest: str, tiny: Study) -> Certificate:
    """Let alpha alone do the rounds that are left and return the certificate."""
    with federation.site("alpha") as alpha, federation.operator() as operator:
        for _ in range(tiny.file.training.rounds - 1):
            assert alpha.answer(alpha.work(), tiny).accepted
        until(lambda: state(federation, digest) == "ended")
        signer = federation.hub.coordinator.signer.public
        return open_signed(operator.certificate(digest), Certificate, signer)


def outcomes(certificate: Certificate, site: str) -> list[tuple[str, str]]:
    return [(cell.outcome, cell.code) for cell in certificate.matrix if cell.site == site]


def test_a_study_resumes_without_the_site_that_left_and_says_why(federation: Federation) -> None:
    digest, tiny = paused(federation, quorum=1)
    depart(federation, "beta")
    resume(federation, digest)
    certificate = finish(federation, digest, tiny)
    left = [("refused", "membership-ended")] * (tiny.file.training.rounds - 1)
    assert outcomes(certificate, "beta") == [("contributed", ""), *left]
    assert {outcome for outcome, _ in outcomes(certificate, "alpha")} == {"contributed"}
    assert certificate.outcome == "PARTIAL"


def test_a_restart_between_leaving_and_resuming_changes_nothing(tmp_path: Path) -> None:
    folder = Folder.make(tmp_path / "folder")
    first = running(folder, tmp_path / "state")
    federation = next(first)
    digest, tiny = paused(federation, quorum=1)
    depart(federation, "beta")
    first.close()
    again = Federation(folder, Hub(folder.settings(tmp_path / "state")))
    try:
        assert state(again, digest) == "paused"
        resume(again, digest)
        certificate = finish(again, digest, tiny)
    finally:
        again.hub.stop()
    assert set(outcomes(certificate, "beta")[1:]) == {("refused", "membership-ended")}


def test_a_study_that_has_too_few_sites_left_is_not_resumed(federation: Federation) -> None:
    digest, _ = paused(federation, quorum=2)
    depart(federation, "beta")
    with pytest.raises(Refusal, match="not-enough-approvals"):
        resume(federation, digest)
    assert state(federation, digest) == "paused"


def test_a_roster_that_drops_the_seat_stops_everybody_until_it_is_back(
    federation: Federation,
) -> None:
    digest, tiny = paused(federation, quorum=1)
    depart(federation, "beta")
    old, root = federation.folder.roster(), federation.folder.consortium
    without = old.model_copy(update={"version": 2, "sites": old.sites[:1]})
    federation.hub.coordinator.take_roster(sign(without, root))
    with pytest.raises(Refusal, match="site-not-on-roster"):
        resume(federation, digest)
    federation.hub.coordinator.take_roster(sign(old.model_copy(update={"version": 3}), root))
    resume(federation, digest)
    certificate = finish(federation, digest, tiny)
    assert set(outcomes(certificate, "beta")[1:]) == {("refused", "membership-ended")}
    assert {outcome for outcome, _ in outcomes(certificate, "alpha")} == {"contributed"}


def test_a_draft_keeps_the_seat_while_a_study_needs_it_and_no_longer(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = federation.folder.operator_file(tmp_path / "operator.toml", federation.hub.address)
    digest, tiny = paused(federation, quorum=1)
    depart(federation, "beta")
    assert main(["roster", "draft", "--operator", str(operator)]) == 0
    file = tmp_path / "roster.toml"
    file.write_text(capsys.readouterr().out)
    assert "a study that has not ended names it" in file.read_text()
    assert main(["roster", "sign", str(file), "--operator", str(operator)]) == 0
    resume(federation, digest)
    finish(federation, digest, tiny)
    capsys.readouterr()
    assert main(["roster", "draft", "--operator", str(operator)]) == 0
    assert "beta" not in capsys.readouterr().out
