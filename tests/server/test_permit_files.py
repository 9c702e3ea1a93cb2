"""What a permit's file must say before it is signed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from larrey_protocol.errors import UsageError
from larrey_server.cli import main
from larrey_server.permits import TEMPLATE, load_filled
from tests.server.peers import Federation

VALUES = {
    "reference": '"test/9"',
    "legal_basis": '"internal"',
    "purposes": '["scientific-research"]',
    "people": '["ada", "ben"]',
    "site": '"alpha"',
    "dataset": '"tiny"',
    "country": '"FR"',
    "decided_on": "2026-01-01",
    "valid_from": "2026-01-01",
    "valid_until": "2098-12-31",
    "retention_until": "2099-12-31",
}


def filled(but: str = "", **changes: str) -> str:
    """Return the template with every placeholder replaced but one."""

    def value(line: re.Match[str]) -> str:
        name = line[1]
        if name == but:
            return line[0]
        text = '["St Mary"]' if line[2].startswith("[") else '"St Mary"'
        return f"{name} = {(VALUES | changes).get(name, text)}"

    return re.sub(r'^(\w+) = (\[?"<.*>"\]?)', value, TEMPLATE, flags=re.MULTILINE)


@pytest.mark.parametrize("name", re.findall(r'^(\w+) = \[?"<', TEMPLATE, flags=re.MULTILINE))
def test_a_value_left_as_the_template_has_it_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "permit.toml"
    path.write_text(filled(but=name))
    with pytest.raises(UsageError, match=rf"\.{name} still.*permit-unfilled"):
        load_filled(path)


def test_a_filled_template_is_a_permit(tmp_path: Path) -> None:
    path = tmp_path / "permit.toml"
    path.write_text(filled())
    assert load_filled(path).permit.state == "GRANTED"


def test_a_template_is_never_written_over_a_file(tmp_path: Path) -> None:
    path = tmp_path / "permit.toml"
    assert main(["permit", "new", "--out", str(path)]) == 0
    assert path.read_text() == TEMPLATE
    path.write_text("mine")
    assert main(["permit", "new", "--out", str(path)]) == 2
    assert path.read_text() == "mine"


def test_a_permit_names_only_people_of_the_roster(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "permit.toml"
    operator = federation.folder.operator_file(tmp_path / "ada.toml", federation.hub.address)
    words = [str(path), "--operator", str(operator)]
    path.write_text(filled(people='["ada", "eve"]'))
    assert main(["permit", "sign", *words]) != 0
    assert "names eve, not on roster version 1 [person-unknown]" in capsys.readouterr().err
    path.write_text(filled())
    assert main(["permit", "sign", *words]) == 0
    assert main(["permit", "amend", *words]) != 0
    assert "permit-unchanged] Change permit.toml" in capsys.readouterr().err
    path.write_text(filled(people='["ada", "eve"]'))
    assert main(["permit", "amend", *words]) != 0
    assert "person-unknown" in capsys.readouterr().err
