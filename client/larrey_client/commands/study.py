"""`larrey-site study …`: read what is proposed, and sign what you decide about it."""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import sys
import time

from larrey_client.commands.build import Build, Json, ask, read
from larrey_client.commands.signer import add_key, load_signer
from larrey_client.settings import SiteSettings

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the commands."""
    build.command("study list", "all studies proposed here", _studies, _tell_studies)
    show = build.command(
        "study show", "what a study asks, in plain words", _show, _tell_study, example="heart"
    )
    show.add_argument("--full", action="store_true", help="everything, also of an amendment")
    show.add_argument("--lang", choices=("en", "fr"), default=_language(), help="language")
    approve = build.command(
        "study approve",
        "sign that a study may use a dataset",
        _approve,
        _tell_decided,
        example="heart --key dpo.key",
    )
    approve.add_argument("--dataset", help="which dataset, if this site has several")
    refuse = build.command(
        "study refuse", "say no to a study", _refuse, _tell_decided, example="heart --key it.key"
    )
    revoke = build.command(
        "study revoke",
        "take an approval back; final, and stops the study here",
        _revoke,
        _tell_decided,
        example="heart --key dpo.key",
    )
    own = build.command(
        "study personalise",
        "train a model of this site's own from an ended study's final one; it stays here",
        _personalise,
        _tell_personal,
        example="heart --model final.safetensors --lambda 0.1",
    )
    own.add_argument("--model", required=True, help="the study's final model, a file")
    own.add_argument("--lambda", default="0", help="pull to the final model; 0 is fine-tuning")
    own.add_argument("--steps", default="100", help="of training (default 100)")
    own.add_argument("--learning-rate", default="", help="the study's own if none is given")
    for command in (show, approve, refuse, revoke, own):
        command.add_argument("study", help="name or digest")
    for command in (approve, refuse, revoke):
        add_key(command)


def _studies(settings: SiteSettings, _: argparse.Namespace) -> Json:
    from larrey_client import views

    def offline(connection: sqlite3.Connection) -> Json:
        return views.studies_view(connection, settings)

    return read(settings, "study list", offline)


def _show(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client import views

    def offline(connection: sqlite3.Connection) -> Json:
        return views.study_view(connection, settings, options.study)

    view = read(settings, "study show", offline, study=options.study)
    return view if options.json else view | {"lang": options.lang, "is_full": options.full}


def _personalise(settings: SiteSettings, options: argparse.Namespace) -> Json:
    return ask(
        settings,
        "study personalise",
        study=options.study,
        model=os.path.abspath(options.model),
        **{"lambda": getattr(options, "lambda")},
        steps=options.steps,
        learning_rate=options.learning_rate,
    )


def _approve(settings: SiteSettings, options: argparse.Namespace) -> Json:
    return _decide(settings, options, "approved")


def _refuse(settings: SiteSettings, options: argparse.Namespace) -> Json:
    return _decide(settings, options, "refused")


def _revoke(settings: SiteSettings, options: argparse.Namespace) -> Json:
    return _decide(settings, options, "revoked")


def _decide(settings: SiteSettings, options: argparse.Namespace, decision: str) -> Json:
    """Sign here, with the person's key; the node gets the signed word alone."""
    from larrey_protocol.decisions import Approval
    from larrey_protocol.signed import sign

    is_approval = decision == "approved"
    dataset = options.dataset if is_approval else ""
    terms = ask(settings, "study terms", study=options.study, dataset=dataset)
    signer = load_signer(settings, options.key)
    sys.stderr.write(
        f"{signer.person.name} signs: {decision} {terms['name']} version {terms['version']}"
        f" ({terms['study']})\n"
    )
    if is_approval:
        sys.stderr.write(
            f"  under permit {terms['permit_reference']} version {terms['permit_version']},"
            f" for dataset {terms['dataset']}, with the sites' keys {terms['seats'][7:19]}\n"
        )
        if terms["is_unbounded"]:
            sys.stderr.write(
                "  WARNING: this study has NO differential privacy; nothing bounds what its model"
                " tells about a person\n"
            )
    word = Approval.model_validate(
        {
            "study": terms["study"],
            "permit": terms["permit"] if is_approval else "",
            "seats": terms["seats"] if is_approval else "",
            "site": terms["site"],
            "dataset": terms["dataset"] if is_approval else "",
            "decision": decision,
            "person": signer.person.name,
            "at": time.time(),
        }
    )
    signed = sign(word, signer.key).to_bytes().decode()
    return ask(settings, "study decide", signed=signed)


def _language() -> str:
    """Return the language of the terminal's own setting."""
    return "fr" if os.environ.get("LANG", "").lower().startswith("fr") else "en"


def _tell_studies(value: Json) -> str:
    from larrey_client.explain import explain_studies

    return explain_studies(value)


def _tell_study(value: Json) -> str:
    from larrey_client.explain import explain_study
    from larrey_client.explain.plain import wrapped

    text = explain_study(value, lang=value["lang"], is_full=value["is_full"])
    if not sys.stdout.isatty():
        return text
    return wrapped(text, shutil.get_terminal_size().columns, indent=14)


def _tell_personal(value: Json) -> str:
    lines = [
        f"The site's own model and its scores lie in {value['path']}.",
        "It has NO differential privacy and tells about its patients: neither may leave the site.",
    ]
    if "own" in value:
        lines.insert(
            1,
            f"Mean loss over {value['rows']:.0f} rows that neither saw: shared model"
            f" {value['shared']:.4f}, own model {value['own']:.4f}.",
        )
    else:
        lines.insert(1, "No scores: the contract keeps no part of the rows for validation.")
    return "\n".join(lines)


def _tell_decided(value: Json) -> str:
    from larrey_client.explain import explain_decided

    return explain_decided(value)
