"""The phrases of `larrey_client.explain.study` in English; `french` has the same keys."""

from __future__ import annotations

__all__ = ["ENGLISH"]

ENGLISH = {
    # labels
    "digest": "digest",
    "proposed-by": "proposed by",
    "state": "state",
    "signatures": "signatures",
    "purpose": "What for",
    "question": "Question",
    "permit": "Permit",
    "controllers": "Controllers",
    "ethics": "Assessed by",
    "who": "Who",
    "variables": "Variables",
    "outcome": "Outcome",
    "model": "Model",
    "rounds": "Rounds",
    "privacy": "Privacy",
    "cost": "Cost",
    "leaves": "What leaves",
    "opposition": "Opt-out",
    "retention": "Kept until",
    "until": "Until when",
    "next": "Next",
    "warning": "WARNING",
    "amends": "Amends",
    "changes": "Changes",
    # purposes of Regulation (EU) 2025/327, article 53
    "public-interest": "the public interest in health",
    "policy-making": "policy making and regulation",
    "statistics": "official statistics",
    "education": "teaching in health care",
    "scientific-research": "scientific research",
    "improving-care": "improving care",
    # sentences
    "title": "{title}  ({name} version {version})",
    "by-consortium": "the consortium's key {key}",
    "by-person": "{person}, key {key}",
    "waiting": "waiting for a decision of this site",
    "approved": "approved",
    "outdated": "outdated: read and sign anew; it was approved",
    "refused": "refused",
    "revoked": "revoked",
    "ended": "ended",
    "by": " by {names}",
    "for-dataset": " for dataset {dataset}",
    "code": ", code {code}",
    "signed-of": "{count} of {total}",
    "signed-missing": "{count} of {total} ({roles} missing)",
    "signed-outdated": "; the approval was of another permit version or of other sites",
    "signed-carried": "; carried over from its parent",
    "permit-line": "{reference} version {version}, {state}, by {authority}; legal basis {basis};"
    " from {start} to {end}",
    "permit-none": "{reference}, which is not known here",
    "hosting": "; coordinator hosted by {hosting}",
    "ethics-line": "data protection: {dpia}; ethics: {ethics}",
    "site": "{name} ({patients} or more, {fingerprint})",
    "site-unknown": "{name} ({patients} or more, NOT ON THE ROSTER)",
    "categories": "{name} ({count} categories)",
    "range": "{name} ({low:g} to {high:g}{unit})",
    "outcome-class": "{name} (one class of: {classes})",
    "outcome-time": "{event}, and {time} until it or until the last news ({count} intervals, up to"
    " {end:g}{unit})",
    "image": "one image a row ({height} x {width}, {colour})",
    "colour": "colour",
    "grey": "grey",
    "model-line": "{name}{hidden}, {parameters} parameters",
    "hidden": ", hidden layers {layers}",
    "layers": ", layers {layers}",
    "rounds-line": "{rounds}{spare}, training steps in each: {steps}, combined by {strategy}{app}",
    "spare": " and {spare} spare",
    "algorithm": "algorithm",
    "objective-plain": "plain training here",
    "objective-fedprox": "training here is held near the common model",
    "objective-scaffold": "training here is corrected by what earlier updates told, all of them"
    " released; this site keeps its own part, which never leaves",
    "objective-feddyn": "training here is shifted by what this site's earlier updates told; it"
    " keeps that, which never leaves",
    "objective-mr-mtl": "training here goes on from this site's own model, held near the mean of"
    " all sites' models; its own model never leaves",
    "aggregator-mean": "updates are combined by their weighted mean",
    "aggregator-median": "updates are combined by the middle value of each number, so that a few"
    " wild sites change little",
    "aggregator-trimmed-mean": "updates are combined by the mean of each number without its"
    " largest and smallest values",
    "aggregator-krum": "only the update that lies closest to the others counts in a round",
    "aggregator-multi-krum": "only the updates that lie closest to each other count in a round",
    "aggregator-geometric-median": "updates are combined by the point closest to all of them, so"
    " that a few wild sites change little",
    "aggregator-centered-clipping": "updates far from the others are pulled in before they are"
    " averaged",
    "aggregator-norm-bounding": "updates that are larger than a bound are shrunk before they are"
    " averaged",
    "optimizer-fedavg": "the coordinator adds the result to the model",
    "optimizer-fedavgm": "the coordinator adds it with momentum from earlier rounds",
    "optimizer-fedadagrad": "the coordinator adapts its step to each number (Adagrad)",
    "optimizer-fedadam": "the coordinator adapts its step to each number (Adam)",
    "optimizer-fedyogi": "the coordinator adapts its step to each number (Yogi)",
    "optimizer-fednova": "the coordinator scales it to the steps that were taken",
    "optimizer-scaffold": "the coordinator adds it, and sends the mean of all corrections with the"
    " model",
    "optimizer-feddyn": "the coordinator adds it, corrected by the sum of all shifts",
    "optimizer-mr-mtl": "the coordinator adds it, so that the model is the mean of all sites'"
    " models",
    "app": ", by the standard Flower app '{app}'",
    "no-privacy": "NO differential privacy: nothing bounds what the model tells about a person",
    "epsilon": "epsilon {epsilon:.3g} at delta {delta:g} per {unit} at this site, add/remove"
    " neighbours, by PLD, over all rounds and spare rounds; noise multiplier {noise:g}",
    "value-of": "a value of",
    "budget": "epsilon {epsilon:g} at delta {delta:g}",
    "cost-unknown": "{dataset}: no epsilon describes it; the budget ({budget}) says nothing",
    "cost-line": "{dataset}: {share:.1%} of the budget ({budget} for all work ever);"
    " {free:.1%} is free{fits}",
    "does-not-fit": "; it does NOT fit",
    "leaves-line": "per round one model update of {bytes} bytes ({tensors}"
    " tensors{stays}{noised}{rounded}), its checked size and norm, and a signed receipt; {metrics}",
    "noised": ", clipped and noised",
    "stays": ", zeros for {names}, trained here alone and never sent",
    "rounded": ", then rounded to {encoding}",
    "no-metrics": "no row, no count, no text",
    "metrics-one": "and the exact number {names}, as its {calls} compute, with a receipt; no row,"
    " no text",
    "metrics-many": "and the exact numbers {names}, as its {calls} compute, with a receipt; no row,"
    " no text",
    "and": " and ",
    "opposition-permit": "who objected before the permit's decision is left out",
    "opposition-round": "who objected before a round is left out of it",
    "opposition-none": "objections do NOT apply: {exception}",
    "retention-line": "models and checkpoints at the coordinator until {day}; groups under {least}"
    " patients are not shown",
    "until-line": "the last round, after at most {time} of rounds; unused spare rounds are"
    " given back",
    "next-line": "larrey-site study approve {name} --key KEY   or   refuse",
    "amends-line": "version {version} ({digest})",
    "change": "{place}: {before} -> {after}",
    "change-none": "nothing",
    "change-sign": "these changes need the signatures of this site",
    "change-free": "these changes need no new signature",
    "full": "the rest is as in version {version}; read everything with --full",
    # warnings
    "warn-no-privacy": "this study has NO differential privacy; whoever gets the model may find"
    " out who took part, and no budget bounds it",
    "warn-unbounded-app": "a standard Flower app trains; no epsilon describes what it does",
    "warn-metrics": "{names}: exact numbers about patients here; no epsilon covers them",
    "warn-recorded": "the ledger will record work 'unbounded' on the dataset for ever; every later"
    " receipt and certificate about it says so",
    "warn-permit-none": "the permit is not known here; nothing can be approved",
    "warn-permit-state": "the permit is {state}",
    "warn-countersign": "the data protection officer has not countersigned the permit's newest"
    " version",
    "warn-roster": "a site of this study is not on the consortium's roster",
    "warn-altered": "a kept document was altered; nothing runs: {what}",
    "warn-budget": "the budget of {dataset} does not hold all rounds",
    "warn-opposition": "patients who object are NOT left out",
}
