"""`larrey-site policy …`: what this hospital allows, and who signed it."""

from __future__ import annotations

import argparse
import sqlite3
import time

from larrey_client.commands.build import Build, Json, read, write
from larrey_client.commands.signer import add_key, load_signer
from larrey_client.settings import SiteSettings

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the commands."""
    build.command("policy show", "what the file says, what is signed, what differs", _show, _tell)
    sign = build.command(
        "policy sign", "sign the policy of site.toml", _sign, _tell_sign, example="--key dpo.key"
    )
    add_key(sign)


def _show(settings: SiteSettings, _: argparse.Namespace) -> Json:
    from larrey_client.decision_pages import policy_view

    def offline(connection: sqlite3.Connection) -> Json:
        return policy_view(connection, settings)

    return read(settings, "policy show", offline)


def _sign(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.charter import charter_of, require_signable
    from larrey_client.signing import policy_version, sign_policy
    from larrey_client.store import SiteStore
    from larrey_protocol.decisions import PolicySignature
    from larrey_protocol.signed import Signed, sign

    charter = charter_of(settings)
    require_signable(charter)
    signer = load_signer(settings, options.key)

    def signed(version: int) -> Signed:
        word = PolicySignature(
            site=charter.site,
            version=version,
            policy=charter.digest,
            person=signer.person.name,
            at=time.time(),
        )
        return sign(word, signer.key)

    def number(store: SiteStore) -> Json:
        return {"version": policy_version(store, settings)}

    version = int(write(settings, "policy show", number)["version"])
    document = signed(version)

    def offline(store: SiteStore) -> Json:
        return {"missing": list(sign_policy(store, settings, document))}

    value = write(settings, "policy sign", offline, signed=document.to_bytes().decode())
    return {"version": version, "digest": charter.digest, "by": signer.person.name, **value}


def _tell(value: Json) -> str:
    from larrey_client.explain import explain_policy

    return explain_policy(value)


def _tell_sign(value: Json) -> str:
    head = f"policy version {value['version']} signed by {value['by']}"
    missing = " and ".join(value["missing"])
    return f"{head}; still to sign: {missing}" if missing else f"{head}; it is in effect"
