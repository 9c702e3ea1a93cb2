"""Attacks that ask data out: small groups, error texts, fields that are on no list."""

from __future__ import annotations

import numpy as np

from larrey_protocol.errors import DataError, LarreyError, Refusal
from larrey_protocol.models import phase_layout
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from larrey_protocol.v1 import larrey_pb2 as wire
from tests.attacks.catalogue import attack
from tests.attacks.stand import Site


@attack("small-group-counted")
def small_group_counted(site: Site) -> str:
    """An app that counts the patients with a rare disease."""
    study = site.with_app()
    assert site.ask(study) == ""
    site.watch()

    def three(study: Study) -> bytes:
        layout = phase_layout(study, "evaluate")
        return pack(layout, np.full(layout.size, 3.0, np.float32))

    site.trainer.make = three
    try:
        return site.ask(study, phase="evaluate")
    finally:
        site.trainer.make = None


@attack("contract-as-a-question")
def contract_as_a_question(site: Site) -> str:
    """A limit so narrow that breaking it would tell who is at the hospital."""
    study = site.running()
    site.watch()
    site.trainer.load_fail = DataError("value-outside-range", "row 3: age 103, Dupont")
    try:
        given = site.peer.request(site.peer.first_task(study))
    finally:
        site.trainer.load_fail = None
    return str(given.fields["code"])


@attack("opposition-as-a-question")
def opposition_as_a_question(site: Site) -> str:
    study = site.running()
    site.watch()
    listed = site.settings.site.state / "opposition.jsonl"
    site.trainer.load_fail = DataError("opposition-unreadable", f"{listed}: Dupont")
    try:
        given = site.peer.request(site.peer.first_task(study))
    finally:
        site.trainer.load_fail = None
    return str(given.fields["code"])


@attack("error-that-tells")
def error_that_tells(site: Site) -> str:
    study = site.running()
    site.watch()
    site.trainer.fail = LarreyError("column-hiv-status-missing", "Dupont")
    try:
        given = site.peer.request(site.peer.first_task(study))
    finally:
        site.trainer.fail = None
    return str(given.fields["code"])


@attack("crash-that-tells")
def crash_that_tells(site: Site) -> str:
    """An error that nobody foresaw, with a patient in its text."""
    study = site.running()
    site.watch()

    def explode(_: Study) -> bytes:
        raise KeyError("Dupont")

    site.trainer.make = explode
    try:
        given = site.peer.request(site.peer.first_task(study))
    finally:
        site.trainer.make = None
    return str(given.fields["code"])


@attack("free-text-sent")
def free_text_sent(site: Site) -> str:
    exchange = site.node.node.exchange
    return site.refused(lambda: exchange.answer(b"Dupont is positive"))


@attack("unlisted-field-sent")
def unlisted_field_sent(site: Site) -> str:
    exchange = site.node.node.exchange
    call = wire.GiveRequest.FromString(b"\x9a\x06\x06Dupont")  # a field that no version knows
    return site.refused(lambda: exchange.give(call))


@attack("version-as-a-channel")
def version_as_a_channel(site: Site) -> str:
    exchange = site.node.node.exchange
    try:
        exchange.take("Dupont is positive", 0)
    except Refusal as error:
        return error.code
    return ""
