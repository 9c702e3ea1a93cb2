"""Signatures, keys, certificates and the audit chain: one changed byte is noticed."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_protocol.audit import AuditRecord, append_record, verify_chain
from larrey_protocol.canonical import canonical_json, digest_of
from larrey_protocol.certificates import (
    issue_client,
    issue_server,
    make_authority,
    public_key_of,
)
from larrey_protocol.errors import FileError, IntegrityError, LarreyError
from larrey_protocol.keys import SigningKey, fingerprint, verify
from larrey_protocol.signed import Answer, Proposal, Signed, open_signed, sign
from tests.protocol.samples import study

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
ANSWER = Answer(study=study().digest, site="alpha", decision="approved", answered_at=1.5)


def test_a_signed_document_travels_and_opens() -> None:
    proposal = Proposal(study=study(), proposed_at=1.0)
    signed = Signed.from_bytes(sign(proposal, KEY).to_bytes())
    assert open_signed(signed, Proposal, KEY.public) == proposal
    assert open_signed(signed, Proposal, KEY.public).study.digest == study().digest


@given(st.data())
def test_any_changed_character_of_a_document_is_refused(data: st.DataObject) -> None:
    signed = sign(ANSWER, KEY)
    at = data.draw(st.integers(0, len(signed.document) - 1))
    new = data.draw(st.characters(codec="ascii").filter(lambda c: c != signed.document[at]))
    forged = signed.document[:at] + new + signed.document[at + 1 :]
    with pytest.raises(IntegrityError):
        open_signed(signed.model_copy(update={"document": forged}), Answer, KEY.public)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{", "{ "),
        ("1.5", "1.50"),
        ('"site":"alpha"', '"site":"alpha","site":"alpha"'),
    ],
)
def test_a_signed_text_in_another_form_is_refused(old: str, new: str) -> None:
    text = sign(ANSWER, KEY).document.replace(old, new, 1)
    signature = KEY.sign(b"larrey.v1.answer\n" + text.encode())
    signed = Signed(kind="answer", document=text, signer=KEY.public, signature=signature)
    with pytest.raises(IntegrityError) as caught:
        open_signed(signed, Answer, KEY.public)
    assert caught.value.code == "malformed-document"


def test_a_document_of_another_kind_or_signer_is_refused() -> None:
    signed = sign(ANSWER, KEY)
    for attempt, code in (
        (lambda: open_signed(signed, Answer, OTHER.public), "wrong-signer"),
        (lambda: open_signed(signed, Proposal, KEY.public), "wrong-document"),
        (
            lambda: open_signed(
                signed.model_copy(update={"kind": "proposal"}), Proposal, KEY.public
            ),
            "bad-signature",
        ),
    ):
        with pytest.raises(IntegrityError) as caught:
            attempt()
        assert caught.value.code == code


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"kind": 1}', b"[" * 100_000])
def test_garbage_is_not_a_signed_document(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="malformed-document"):
        Signed.from_bytes(data)


def test_a_key_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "site.ed25519"
    KEY.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load(path).public == KEY.public
    with pytest.raises(FileError, match="file-exists"):
        KEY.save(path)
    os.chmod(path, 0o644)
    with pytest.raises(FileError, match="key-exposed"):
        SigningKey.load(path)


def test_what_is_not_an_ed25519_key_is_refused(tmp_path: Path) -> None:
    text, curve = tmp_path / "text", tmp_path / "curve"
    text.write_text("hello")
    curve.write_bytes(make_authority("ca", now=dt.datetime.now(dt.UTC)).key)
    for path in (text, curve):
        path.chmod(0o600)
        with pytest.raises(FileError, match="invalid-key"):
            SigningKey.load(path)


def test_a_fingerprint_is_short_and_distinct() -> None:
    assert fingerprint(KEY.public) != fingerprint(OTHER.public)
    assert [len(group) for group in fingerprint(KEY.public).split("-")] == [4] * 5
    with pytest.raises(IntegrityError, match=r"not a key"):
        verify("rsa:abc", b"", "")


def test_certificates_name_their_holder_and_differ_in_key() -> None:
    now = dt.datetime.now(dt.UTC)
    authority = make_authority("ca", now=now)
    server = issue_server(authority, ["localhost", "127.0.0.1"], now=now)
    site = issue_client(authority, "alpha", now=now)
    keys = {public_key_of(c.certificate).public_numbers().x for c in (authority, server, site)}
    assert len(keys) == 3


def chain(length: int) -> list[AuditRecord]:
    records: list[AuditRecord] = []
    for i in range(length):
        draft = AuditRecord(0, float(i), "alpha", "update-sent", subject=f"s{i}")
        records.append(append_record(records[-1] if records else None, draft))
    return records


def test_an_intact_chain_verifies_to_its_last_record() -> None:
    records = chain(5)
    assert verify_chain(records) == records[-1]
    assert verify_chain(records, anchor=records[2].head) == records[-1]
    assert verify_chain([]) is None


@given(st.integers(0, 5), st.sampled_from(["edit", "delete", "swap", "insert"]))
def test_edit_delete_reorder_and_insert_are_found_with_their_index(at: int, how: str) -> None:
    records = chain(7)
    if how == "edit":
        records[at] = replace(records[at], subject="other")
    elif how == "delete":
        del records[at]
    elif how == "swap":
        records[at], records[at + 1] = records[at + 1], records[at]
    else:
        records.insert(at, records[at])
    expected = at + 2 if how == "insert" else at + 1
    with pytest.raises(IntegrityError, match=f"record {expected} "):
        verify_chain(records)


def test_a_truncated_chain_is_found_by_its_anchor() -> None:
    records = chain(4)
    with pytest.raises(IntegrityError, match="audit-behind-anchor"):
        verify_chain(records[:-1], anchor=records[-1].head)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(backwards)
    assert digest_of(value) == digest_of(backwards)


def test_canonical_json_refuses_what_json_cannot_say() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))


def test_an_error_reads_as_sentence_code_and_next_step() -> None:
    error = LarreyError("port-busy", "port 9443 is taken", "Choose another.")
    assert str(error) == "port 9443 is taken [port-busy] Choose another."
    with pytest.raises(ValueError, match="lower-case"):
        LarreyError("Port Busy", "x")
