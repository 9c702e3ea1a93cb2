"""What a person types to see what left, who did what, and to open an incident."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flwr.proto.message_pb2 import Metadata

from larrey_client.agent import Agent
from larrey_client.cli import main
from larrey_client.egress_log import EgressLog
from larrey_client.logs import Logs, purge_study
from larrey_client.run import open_node
from larrey_client.settings import SiteSettings
from larrey_protocol.access_log import AccessLog
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.egress_list import LISTED
from larrey_protocol.errors import Refusal
from larrey_protocol.study import Study
from tests.client.border.watched import WatchingPeer
from tests.client.node.trainers import SmallTrainer
from tests.protocol.samples import study as make_study

STUDY = make_study()
Command = Callable[..., Any]


@pytest.fixture
def command(site_file: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return what runs a command and gives its JSON, or its exit status where it fails."""

    def run(*words: str) -> Any:
        capsys.readouterr()
        status = main([*words, "--json", "--config", str(site_file)])
        return json.loads(capsys.readouterr().out) if status == 0 else status

    return run


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def agent(stack: ExitStack, settings: SiteSettings, trainer: SmallTrainer) -> Agent:
    return stack.enter_context(open_node(settings, lambda _: trainer, threading.Event()))


@pytest.fixture
def judged(agent: Agent, peer: WatchingPeer, approve: Callable[[Agent, Study], Study]) -> str:
    """Run one round and return the digest of its update."""
    return str(peer.request(peer.first_task(approve(agent, STUDY))).fields["update"])


@pytest.fixture(params=["running", "stopped"])
def node(request: pytest.FixtureRequest, judged: str, stack: ExitStack) -> str:
    """Have the command ask a running node, or read its state after its end."""
    if request.param == "stopped":
        stack.close()
    return judged


def test_egress_lists_what_left_for_a_study(node: str, command: Command) -> None:
    found = command("egress", "--study", "tiny")
    methods = [row["method"] for row in found["messages"]]
    assert methods == ["Studies/Answer", "Exchange/Fetch", "Exchange/Store", "Exchange/Give"]
    assert found["messages"][2]["digest"] == node
    everything = command("egress")
    assert sum(row["bytes"] for row in everything["messages"]) < everything["total_bytes"]
    assert {row["method"] for row in everything["polls"]} == {"Exchange/Take", "Studies/List"}
    assert command("egress", "--since", "2999-01-01")["messages"] == []


def test_a_payload_is_written_as_it_left(
    judged: str, peer: WatchingPeer, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "update"
    said = command("egress", "--payload", judged, "--out", str(out))
    assert out.read_bytes() == peer.uploads[judged]
    assert said["digest"] == judged == digest_bytes(out.read_bytes())
    assert command("egress", "--payload", judged, "--out", str(out)) == 2  # never over a file


def test_who_ran_what_is_one_command(node: str, command: Command) -> None:
    (row,) = command("audit", "query", "--dataset", "heart", "--action", "update-released")
    assert (row["name"], row["round"], row["subject"]) == ("tiny", 1, node)
    assert row["permit"].startswith("sha256:")
    assert row["epsilon"] > 0
    assert command("audit", "query", "--dataset", "lungs") == []
    assert command("audit", "query", "--to", "2001-01-01") == []


def test_verify_checks_trail_ledger_and_seal(
    node: str, command: Command, settings: SiteSettings
) -> None:
    found = command("audit", "verify")
    assert found["is_intact"] is True
    assert found["signed_heads"] >= 2
    seal = settings.site.state / "trail.anchor"
    seal.write_bytes(seal.read_bytes().replace(b"alpha", b"aleph"))
    assert command("audit", "verify") == 1


def test_the_door_keeps_who_used_which_command(
    agent: Agent, command: Command, settings: SiteSettings
) -> None:
    command("status")
    assert command("study", "show", "no-such-study") != 0
    rows = command("audit", "access")
    assert [(row["verb"], row["code"]) for row in rows][-2:] == [
        ("status", "ok"),
        ("study show", "study-unknown"),
    ]
    assert rows[0]["actor"]
    assert AccessLog(settings.site.state).rows()[-1]["verb"] == "audit access"


def test_the_words_of_a_command_for_a_person(
    judged: str, site_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["egress"], ["audit", "query"], ["audit", "access"], ["audit", "export"]):
        assert main([*words, "--config", str(site_file)]) == 0
    text = capsys.readouterr().out
    assert "bytes left in all" in text
    assert "update-released" in text
    assert "within the hour" in text


def test_an_incident_is_opened_exported_verified_and_closed(
    node: str, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "incident.zip"
    opened = command("incident", "open", "--kind", "integrity", "--out", str(out))
    assert opened["notification_due"] - opened["opened_at"] == 72 * 3600
    files = command("incident", "verify", str(out))["files"]
    names = ("access", "config", "documents", "egress", "incidents", "trail")
    assert files == [f"{name}.json" for name in names]
    (listed,) = command("incident", "list")
    assert listed["closed_at"] is None
    assert command("incident", "open", "--kind", "integrity", "--out", str(out)) == 2
    assert command("incident", "close", "1")["number"] == 1
    assert command("incident", "list")[0]["closed_at"] > 0


def test_a_bundle_holds_no_key_no_row_and_no_payload(
    judged: str, command: Command, tmp_path: Path, peer: WatchingPeer
) -> None:
    out = tmp_path / "incident.zip"
    command("incident", "open", "--kind", "suspected", "--out", str(out))
    data = out.read_bytes()
    for secret in ("site.key", "signing.pem"):
        assert (tmp_path / secret).read_bytes().splitlines()[1] not in data
    assert peer.uploads[judged] not in data


def test_closing_a_study_keeps_its_copies_while_an_incident_is_open(
    judged: str, agent: Agent, command: Command, settings: SiteSettings, tmp_path: Path
) -> None:
    logs = Logs(EgressLog(settings.site.state), AccessLog(settings.site.state))
    command("incident", "open", "--kind", "suspected", "--out", str(tmp_path / "one.zip"))
    with pytest.raises(Refusal, match="incident-open"):
        purge_study(logs, agent.node.store, STUDY.digest)
    command("incident", "close", "1")
    assert purge_study(logs, agent.node.store, STUDY.digest) > 0


def test_every_field_of_flower_s_envelope_has_a_line() -> None:
    listed = LISTED["flwr.proto.PushMessagesRequest"]
    prefix = "messages_list.metadata."
    names = {path.removeprefix(prefix) for path in listed if path.startswith(prefix)}
    assert names == {field.name for field in Metadata.DESCRIPTOR.fields}
