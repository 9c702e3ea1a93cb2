"""A certificate is checked with the file alone: one lie, one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_protocol.canonical import canonical_json
from larrey_protocol.errors import IntegrityError
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Certificate, Contribution, Signed, sign
from larrey_server.certificate_check import open_certificate, require_honest, require_of
from larrey_server.cli import main
from tests.protocol.samples import study
from tests.server.peers import Federation, until
from tests.server.test_study_over_grpc import approve_all, run_sites

KEY = SigningKey.generate()
MODEL = "sha256:" + "b" * 64
SITES = ("alpha", "beta")
TINY = study(rounds__quorum=1, training__rounds=2)


def cell(site: str, number: int, outcome: str = "contributed", code: str = "") -> Contribution:
    return Contribution.model_validate(
        {"site": site, "round": number, "outcome": outcome, "code": code}
    )


WHOLE = tuple(cell(site, number) for number in (1, 2) for site in SITES)


def paper(**changes: Any) -> Certificate:
    fields = {
        "study": TINY.digest, "name": "tiny", "outcome": "COMPLETE", "rounds_planned": 2,
        "rounds_applied": 2, "sites": SITES, "matrix": WHOLE, "model": MODEL,
        "audit_head": "1:x", "ended_at": 0.0,
    }  # fmt: skip
    return Certificate.model_validate(fields | changes)


def swapped(*cells: Contribution) -> tuple[Contribution, ...]:
    """Return the whole matrix with some cells in the place of theirs."""
    new = {(one.site, one.round): one for one in cells}
    return tuple(new.get((one.site, one.round), one) for one in WHOLE)


HONEST = {
    "all": paper(),
    "one was late": paper(outcome="PARTIAL", matrix=swapped(cell("beta", 2, "late"))),
    "closed after a round": paper(
        outcome="PARTIAL", reason="closed-by-order", rounds_applied=1, matrix=WHOLE[:2]
    ),
    "closed in the second round": paper(
        outcome="PARTIAL", reason="closed-by-order", rounds_applied=1,
        matrix=swapped(cell("alpha", 2, code="study-halted"), cell("beta", 2, "halted")),
    ),
    "closed before any": paper(
        outcome="FAILED", reason="closed-by-order", rounds_applied=0, matrix=(), model=""
    ),
    "no aggregate": paper(
        outcome="FAILED", reason="not-finite", rounds_applied=1,
        matrix=swapped(*(cell(s, 2, code="round-not-applied") for s in SITES)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_certificate_is_taken(name: str) -> None:
    signed = sign(HONEST[name], KEY)
    assert open_certificate(signed, KEY.public) == open_certificate(signed) == HONEST[name]
    require_of(HONEST[name], TINY)


LIES = {
    "late is no contribution": (
        paper(matrix=swapped(cell("beta", 2, "late"))),
        "outcome-unfounded", "says COMPLETE; its matrix shows PARTIAL",
    ),
    "excluded is no contribution": (
        paper(matrix=swapped(cell("beta", 1, "excluded"))), "outcome-unfounded", "shows PARTIAL",
    ),
    "a contribution that was not applied": (
        paper(matrix=swapped(cell("beta", 2, code="round-not-applied"))),
        "outcome-unfounded", "shows PARTIAL",
    ),
    "all is not in part": (paper(outcome="PARTIAL"), "outcome-unfounded", "shows COMPLETE"),
    "a round short": (
        paper(rounds_applied=1, matrix=WHOLE[:2]), "outcome-unfounded", "shows PARTIAL",
    ),
    "nothing is nothing in part": (
        paper(outcome="PARTIAL", rounds_applied=0, matrix=(), model=""),
        "outcome-unfounded", "shows FAILED",
    ),
    "a failure without a reason": (paper(outcome="FAILED"), "outcome-unfounded", "says FAILED"),
    "a round of nobody": (
        paper(outcome="PARTIAL", matrix=swapped(*(cell(s, 1, "late") for s in SITES))),
        "outcome-unfounded", "round 1 was applied, to which nobody contributed",
    ),
    "no model": (paper(model=""), "outcome-unfounded", "names no model"),
    "a cell is missing": (
        paper(matrix=WHOLE[:3]), "matrix-incomplete", "no cell of beta in round 2",
    ),
    "a round is missing": (
        paper(matrix=WHOLE[:2]), "matrix-incomplete", "ends with round 1; 2 of 2 rounds",
    ),
    "a cell is there twice": (
        paper(matrix=(*WHOLE[:3], WHOLE[2])), "matrix-incomplete", "more than one cell of alpha",
    ),
    "a cell of nobody": (
        paper(matrix=(*WHOLE, cell("gamma", 2))), "matrix-incomplete", "more cells than sites",
    ),
    "a round too many": (
        paper(matrix=(*WHOLE, cell("alpha", 3), cell("beta", 3))),
        "matrix-incomplete", "ends with round 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_certificate_that_lies_is_refused_with_the_place(name: str) -> None:
    made, code, sentence = LIES[name]
    with pytest.raises(IntegrityError, match=sentence) as caught:
        open_certificate(sign(made, KEY))
    assert caught.value.code == code


@given(st.data())
def test_complete_is_only_what_every_site_contributed_to_in_every_round(
    data: st.DataObject,
) -> None:
    outcomes = ["contributed", "late", "refused", "absent", "halted", "waiting", "excluded"]
    drawn = [
        cell(
            site,
            number,
            data.draw(st.sampled_from(outcomes)),
            data.draw(st.sampled_from(["", "x"])),
        )
        for number in (1, 2)
        for site in SITES
    ]
    made = paper(matrix=tuple(drawn))
    try:
        require_honest(made)
    except IntegrityError:
        assert made.matrix != WHOLE
    else:
        assert made.matrix == WHOLE


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (study(rounds__quorum=1, training__rounds=3), "certificate-differs"),
        (study(rounds__quorum=2, training__rounds=2), "outcome-unfounded"),
        (study(rounds__quorum=1, rounds__required=["beta"], training__rounds=2),
         "outcome-unfounded"),
    ],
)  # fmt: skip
def test_a_certificate_is_of_its_study_and_every_round_had_its_quorum(
    wanted: Any, code: str
) -> None:
    lacking = paper(outcome="PARTIAL", matrix=swapped(cell("beta", 2, "late")))
    own = lacking.model_copy(update={"study": wanted.digest})
    with pytest.raises(IntegrityError, match=code):
        require_of(own, wanted)


@pytest.fixture
def ended(federation: Federation, tmp_path: Path) -> tuple[Federation, list[str], Path]:
    """Give an ended study, the words that name the operator, and its certificate in a file."""
    tiny = study(training__rounds=1)
    digest = approve_all(federation, tiny)
    federation.launch(digest)
    run_sites(federation, tiny)
    at = federation.hub.address
    asked = ["--operator", str(federation.folder.operator_file(tmp_path / "op.toml", at))]
    with federation.operator() as operator:
        until(lambda: operator.find(digest)["state"] == "ended")
        file = tmp_path / "certificate.json"
        file.write_bytes(operator.certificate(digest).to_bytes())
    return federation, asked, file


def test_a_certificate_is_verified_of_a_coordinator_and_of_a_file(
    ended: tuple[Federation, list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    federation, asked, file = ended
    key = federation.hub.coordinator.signer.public
    assert main(["study", "certificate", "tiny", "--verify", *asked]) == 0
    online = capsys.readouterr()
    assert main(["study", "certificate", "--verify", "--file", str(file), "--key", key]) == 0
    offline = capsys.readouterr()
    assert online.out == offline.out
    assert "COMPLETE" in offline.out
    assert "verified: signature, matrix, outcome" in online.err
    assert "verified: signature, matrix, outcome" in offline.err
    assert main(["study", "certificate", "tiny", *asked, "--json"]) == 0
    assert capsys.readouterr().out.encode().strip() == file.read_bytes()


def refused(capsys: pytest.CaptureFixture[str], file: Path, *words: str) -> str:
    """Return what is said about a file that is not believed; nothing of it is printed."""
    assert main(["study", "certificate", "--file", str(file), *words]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_each_lie_about_a_certificate_has_its_own_sentence(
    ended: tuple[Federation, list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, file = ended
    genuine = file.read_bytes()
    signed = Signed.from_bytes(genuine)
    facts = json.loads(signed.document)
    other = refused(capsys, file, "--verify", "--key", KEY.public)
    assert "[wrong-signer]" in other
    assert "not heart" in refused(capsys, file, "heart")
    file.write_bytes(genuine.replace(b"COMPLETE", b"COMPLETF"))
    assert "[bad-signature]" in refused(capsys, file)
    file.write_bytes(genuine[:-2])
    assert "[malformed-document]" in refused(capsys, file)
    for code, change in {
        "outcome-unfounded": {"outcome": "PARTIAL"},
        "matrix-incomplete": {"matrix": facts["matrix"][:1]},
    }.items():
        lie = Certificate.model_validate_json(canonical_json(facts | change))
        file.write_bytes(sign(lie, KEY).to_bytes())
        assert main(["study", "certificate", "--file", str(file)]) == 0  # printed, not checked
        capsys.readouterr()
        assert f"[{code}]" in refused(capsys, file, "--verify")


def test_a_coordinator_that_certifies_a_round_without_its_quorum_is_found(
    ended: tuple[Federation, list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    federation, asked, file = ended
    coordinator = federation.hub.coordinator
    facts = json.loads(Signed.from_bytes(file.read_bytes()).document)
    facts["matrix"][1] |= {"outcome": "late"}  # the study's quorum is two
    lie = Certificate.model_validate_json(canonical_json(facts | {"outcome": "PARTIAL"}))
    sealed = sign(lie, coordinator.signer).to_bytes()
    coordinator.journal._connection.execute("UPDATE studies SET certificate = ?", (sealed,))
    assert main(["study", "certificate", "tiny", *asked, "--verify"]) == 1
    said = capsys.readouterr().err
    assert "round 1 was applied with 1 sites; the study asks for 2" in said


def test_a_certificate_of_nothing_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "certificate", "--verify"]) == 2
    assert "[missing-argument]" in capsys.readouterr().err
    assert main(["study", "certificate", "--file", "/nowhere/certificate.json"]) == 2
