"""`larrey-site data add`: the node reads the patients, the officer signs, the node compares."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from larrey_client.cli import main
from larrey_client.families import family_of, is_registered
from larrey_client.local import Door
from larrey_client.officer import Officer
from larrey_client.registrar import registrar_handlers, rescan
from larrey_client.settings import SiteSettings, load_settings
from larrey_client.store import SiteStore
from larrey_protocol.errors import Refusal
from larrey_protocol.keys import SigningKey
from tests.client.ledger.conftest import State, make_officer, sign_charter
from tests.client.ledger.test_families import patients
from tests.client.ledger.test_ledger_pages import SITE_TOML


class Scanner:
    """A trainer that has read these patients."""

    def __init__(self) -> None:
        self.found: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, bytes]] = []

    def scan(self, source: Path, unit: str, salt: bytes) -> bytes:
        self.asked.append((source.name, unit, salt))
        return self.found[source.name]


@dataclass
class Parts:
    """What the registrar uses of a node."""

    settings: SiteSettings
    store: SiteStore
    site: str = "alpha"
    trainer: Scanner = field(default_factory=Scanner)
    trainer_turn: threading.Lock = field(default_factory=threading.Lock)
    scanned: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def found(self, name: str, *numbers: int) -> None:
        """Let these patients be in a file from now on."""
        path = self.settings.site.state.parent / name
        path.write_text(f"{len(self.trainer.asked)} {numbers}")
        self.trainer.found[name] = patients(*numbers)


@pytest.fixture
def node(empty: State, dpo: Officer, tmp_path: Path) -> Iterator[Parts]:
    """Give a node whose door answers, and the officer's key in a file."""
    path = tmp_path / "site.toml"
    text = SITE_TOML.format(consortium=SigningKey.generate().public, officer=dpo)
    path.write_text(text.replace('name = "alpha"', 'name = "alpha"\nstate = "empty"'))
    dpo.key.save(tmp_path / "dpo.key")
    parts = Parts(load_settings(path), empty.store)
    parts.found("heart.csv", 1, 2)
    parts.found("lung.csv", 9)
    door = Door(empty.folder, registrar_handlers(parts))
    yield parts
    door.close()


def add(tmp_path: Path, name: str, key: str = "dpo.key") -> int:
    words = ["data", "add", name, "--key", str(tmp_path / key)]
    return main([*words, "--config", str(tmp_path / "site.toml")])


def test_a_dataset_is_read_signed_and_placed(
    node: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(tmp_path, "heart") == 0
    assert "heart (2 patients) has a budget of its own" in capsys.readouterr().out
    assert family_of(node.store, "heart") == "heart"
    assert node.store.ledger.datasets() == ("heart",)
    assert node.trainer.asked == [("heart.csv", "patient_id", node.store.secret())] * 2


def test_a_dataset_without_a_patient_column_cannot_be_placed(
    node: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(tmp_path, "lung") == 2
    assert "unit-required" in capsys.readouterr().err
    assert not is_registered(node.store, "lung")


def test_only_the_officer_may_sign(
    node: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SigningKey.generate().save(tmp_path / "stranger.key")
    assert add(tmp_path, "heart", "stranger.key") == 1
    assert "person-unknown" in capsys.readouterr().err
    assert not is_registered(node.store, "heart")


def test_an_officer_whom_the_file_alone_names_places_nothing(
    node: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str], dpo: Officer
) -> None:
    sign_charter(node.store, node.settings, dpo)
    thief = make_officer("t.hief")
    thief.key.save(tmp_path / "thief.key")
    path = tmp_path / "site.toml"
    listed = path.read_text().replace(dpo.person.key, thief.person.key)
    path.write_text(listed.replace(dpo.person.name, thief.person.name))
    node.settings = load_settings(path)  # the node was started anew
    assert add(tmp_path, "heart", "thief.key") == 1
    assert "person-unknown" in capsys.readouterr().err
    assert not is_registered(node.store, "heart")


def test_rows_that_changed_after_signing_are_not_placed(
    node: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = iter([patients(1, 2), patients(1, 2, 3)])
    node.trainer.scan = lambda *_: next(found)  # type: ignore[method-assign]
    assert add(tmp_path, "heart") == 1
    assert "registration-differs" in capsys.readouterr().err
    assert not is_registered(node.store, "heart")


def test_a_dataset_read_again_before_work_keeps_its_family_up_to_date(
    node: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(tmp_path, "heart")
    heart = node.settings.dataset("heart")
    assert heart is not None
    node.found("heart.csv", 2, 3)
    rescan(node, heart)  # type: ignore[arg-type]
    lung = heart.model_copy(update={"name": "lung", "path": Path("lung.csv")})
    rescan(node, lung)  # type: ignore[arg-type]  # nobody registered it: nothing to compare
    node.found("heart.csv", 1, 2, 3)
    head = node.store.audit_head
    rescan(node, heart)  # type: ignore[arg-type]
    assert node.store.audit_head == head  # 1 is still one of the family


def test_rows_that_did_not_change_are_not_read_again(node: Parts, tmp_path: Path) -> None:
    add(tmp_path, "heart")
    heart = node.settings.dataset("heart")
    assert heart is not None
    for _ in range(3):
        rescan(node, heart)  # type: ignore[arg-type]
    (tmp_path / "heart.csv").unlink()
    rescan(node, heart)  # type: ignore[arg-type]
    assert len(node.trainer.asked) == 3  # offered, placed, and once since then


def test_a_dataset_that_gained_patients_of_another_family_does_not_work(
    node: Parts, tmp_path: Path
) -> None:
    add(tmp_path, "heart")
    heart = node.settings.dataset("heart")
    assert heart is not None
    copy = heart.model_copy(update={"name": "lung", "path": Path("lung.csv")})
    settings = node.settings.model_copy(update={"datasets": (heart, copy)})
    node.settings = settings
    assert add(tmp_path, "lung") == 0  # the door answers with what the node knows now
    node.found("heart.csv", 1, 9)
    with pytest.raises(Refusal, match="families-bridged"):
        rescan(node, heart)  # type: ignore[arg-type]
