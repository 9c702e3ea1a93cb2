"""Versions of a study, and the bundle that releases its model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from larrey_protocol.errors import IntegrityError, LarreyError, Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Signed
from larrey_protocol.study import Study
from larrey_protocol.tomlfile import validate
from larrey_server.amending import child_of
from larrey_server.operator import Operator
from larrey_server.release import Bundle, verify_bundle
from tests.protocol.samples import study
from tests.server.peers import Federation, until

SHORT = study(training__rounds=1)


def approve(federation: Federation, digest: str) -> None:
    for name in ("alpha", "beta"):
        with federation.site(name) as site:
            assert site.approve(digest).recorded


def run(federation: Federation, wanted: Study = SHORT) -> str:
    """Run a study of one round to its end."""
    digest = federation.propose(wanted)
    approve(federation, digest)
    federation.launch(digest)

    def answer(name: str) -> None:
        with federation.site(name) as site:
            site.answer(site.work(), wanted, seed=len(name))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(answer, ("alpha", "beta")))
    with federation.operator() as operator:
        until(lambda: operator.find(digest)["outcome"] == "COMPLETE")
    return digest


def bundle(operator: Operator, digest: str, model: str) -> Bundle:
    operator.command(digest, "release", model)
    return Bundle(
        documents=(
            *operator.rosters(),
            *operator.permits("test/1"),
            *operator.documents(digest),
            operator.certificate(digest),
        )
    )


@pytest.fixture
def released(federation: Federation) -> tuple[Federation, Bundle]:
    digest = run(federation)
    with federation.operator("ben") as operator:
        return federation, bundle(operator, digest, str(operator.find(digest)["model"]))


def without(of: Bundle, kind: str) -> Bundle:
    return Bundle(documents=tuple(d for d in of.documents if d.kind != kind))


def test_version_and_parent_are_filled_in_from_the_newest_version() -> None:
    child = child_of(study(), study(rounds__deadline_s=60.0))
    assert (child.file.study.version, child.file.study.parent) == (2, study().digest)
    assert child_of(child, study()).file.study.version == 3


def test_a_child_of_another_permit_is_no_amendment() -> None:
    with pytest.raises(Refusal, match="not-an-amendment"):
        child_of(study(), study(study__permit="test/2"))


def test_an_amendment_is_proposed_beside_its_parent(federation: Federation) -> None:
    parent = federation.propose(study())
    with federation.operator() as operator:
        child = child_of(operator.proposal("tiny"), study(training__rounds=2))
        digest = operator.propose(child)
        assert operator.proposal("tiny") == child  # the newest of the name
        assert operator.proposal(parent) == study()
        facts = operator.find(digest)
    assert (facts["version"], facts["parent"]) == (2, parent)


def test_an_amendment_of_nothing_known_is_refused(federation: Federation) -> None:
    orphan = study(study__version=2, study__parent="sha256:" + "0" * 64)
    with federation.operator() as operator, pytest.raises(Refusal, match="parent-unknown"):
        operator.propose(orphan)


def test_a_number_that_skips_a_version_is_refused(federation: Federation) -> None:
    parent = federation.propose(study())
    skipping = study(study__version=3, study__parent=parent)
    with federation.operator() as operator, pytest.raises(Refusal, match="not-an-amendment"):
        operator.propose(skipping)


def test_a_child_waits_for_its_parents_end(federation: Federation) -> None:
    parent = federation.propose(study())
    approve(federation, parent)
    federation.launch(parent)
    with federation.operator() as operator:
        child = operator.propose(child_of(study(), study(training__rounds=2)))
        approve(federation, child)
        with pytest.raises(Refusal, match="parent-running"):
            operator.launch(child)


def test_a_child_of_an_ended_parent_is_launched(federation: Federation) -> None:
    parent = run(federation)
    with federation.operator() as operator:
        child = operator.propose(child_of(operator.proposal(parent), study(training__rounds=2)))
        approve(federation, child)
        assert operator.launch(child)["state"] != "proposed"


def test_a_version_that_a_launched_one_amends_is_not_launched(federation: Federation) -> None:
    parent = federation.propose(SHORT)
    approve(federation, parent)
    with federation.operator() as operator:
        child = child_of(SHORT, study(training__rounds=1, rounds__deadline_s=60.0))
        operator.propose(child)
        digest = operator.propose(child_of(child, SHORT))
        approve(federation, digest)
        operator.launch(digest)
        with pytest.raises(Refusal, match="study-superseded"):
            operator.launch(parent)


def test_a_proposed_change_alone_supersedes_nothing(federation: Federation) -> None:
    parent = federation.propose(SHORT)
    approve(federation, parent)
    with federation.operator() as operator:
        operator.propose(child_of(SHORT, study(training__rounds=2)))
        assert operator.launch(parent)["state"] == "open"


def test_the_launcher_does_not_release(federation: Federation) -> None:
    digest = run(federation)
    with federation.operator() as operator, pytest.raises(Refusal, match="duties-not-separate"):
        operator.command(digest, "release", str(operator.find(digest)["model"]))


def test_a_bundle_proves_who_did_what(released: tuple[Federation, Bundle]) -> None:
    federation, made = released
    facts = verify_bundle(made, federation.folder.consortium.public)
    assert (facts["launched_by"], facts["released_by"]) == ("ada", "ben")
    assert (facts["outcome"], facts["sites"]) == ("COMPLETE", ["alpha", "beta"])
    assert verify_bundle(validate(made.model_dump(mode="json"), Bundle, "x")) == facts


@pytest.mark.parametrize("kind", ["roster", "permit", "proposal", "certificate", "order"])
def test_a_bundle_without_a_piece_proves_nothing(
    released: tuple[Federation, Bundle], kind: str
) -> None:
    with pytest.raises(IntegrityError):
        verify_bundle(without(released[1], kind), released[0].folder.consortium.public)


def test_a_bundle_under_another_consortium_is_refused(
    released: tuple[Federation, Bundle],
) -> None:
    with pytest.raises(IntegrityError, match="wrong-signer"):
        verify_bundle(released[1], SigningKey.generate().public)


def test_one_altered_byte_anywhere_breaks_a_bundle(released: tuple[Federation, Bundle]) -> None:
    federation, made = released
    for place, document in enumerate(made.documents):
        middle = len(document.document) // 2
        text = document.document
        other = "0" if text[middle] != "0" else "1"
        forged: Signed = document.model_copy(
            update={"document": text[:middle] + other + text[middle + 1 :]}
        )
        documents = (*made.documents[:place], forged, *made.documents[place + 1 :])
        with pytest.raises(LarreyError):
            verify_bundle(Bundle(documents=documents), federation.folder.consortium.public)


def test_release_is_one_command_and_its_check_another(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from larrey_server.cli import main

    run(federation)
    operator = federation.folder.operator_file(tmp_path / "ben.toml", federation.hub.address, "ben")
    out = tmp_path / "bundle.json"
    words = ["study", "release", "tiny", "--out", str(out), "--operator", str(operator)]
    assert main(words) == 0
    assert main(["study", "release", "--verify", str(out)]) == 0
    assert "released_by" in capsys.readouterr().out
    out.unlink()
    assert main(words) == 0  # the order is on record; only the file is made again


def test_list_show_and_history_name_the_permit(
    federation: Federation, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from larrey_server.cli import main

    federation.propose(study())
    operator = federation.folder.operator_file(tmp_path / "ada.toml", federation.hub.address)
    assert main(["study", "list", "--operator", str(operator)]) == 0
    assert "test/1 GRANTED" in capsys.readouterr().out
    assert main(["study", "show", "tiny", "--operator", str(operator)]) == 0
    assert "A tiny study" in capsys.readouterr().out
    assert main(["permit", "history", "test/1", "--operator", str(operator)]) == 0
    assert "consortium" in capsys.readouterr().out
