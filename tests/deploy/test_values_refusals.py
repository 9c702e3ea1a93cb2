"""Values that would open, blur or break an installation are refused before installing."""

from pathlib import Path

import pytest

CHARTS = Path(__file__).resolve().parents[2] / "deploy" / "helm"

BOTH = [
    ("configg=x", "configg"),
    ("consortium=null", "consortium"),
    ("consortium.key=-----BEGIN PRIVATE KEY-----", "consortium.key"),
    ("consortium.signing_key=x", "signing_key"),
    ("image.tagg=1", "tagg"),
    ("image.tag=latest", "image.tag"),
    ("image.digest=sha256:1", "image.digest"),
    ("image.registry=", "no image registry"),
    ("state.size=plenty", "state.size"),
    ("state.accessMode=ReadWriteMany", "state.accessMode"),
    ("resources.limits=null", "resources"),
    ("extraEnv[0].name=FLWR_TELEMETRY_ENABLED", "extraEnv.0.name"),
]
COORDINATOR = [
    ("networkPolicy.callers={0.0.0.0/0}", "networkPolicy.callers.0"),
    ("networkPolicy.callers={::/0}", "networkPolicy.callers.0"),
    ("networkPolicy.callers={0.0.0.0/1,128.0.0.0/1}", "networkPolicy.callers.0"),
    ("networkPolicy.ingressNamespace=", "nobody could reach the coordinator"),
    ("service.type=LoadBalancer", "needs networkPolicy.callers"),
    ("tls.existingSecret=", "tls.existingSecret"),
    ("signing.privateKey=abc", "privateKey"),
    ("authority.key=abc", "authority"),
    ("coordinator.max_sites=0", "coordinator.max_sites"),
    ("coordinator.state=/tmp", "state"),
    ("operators[0].name=Operator", "operators.0.name"),
    ("operators[0].certificate=-----BEGIN PRIVATE KEY-----", "operators.0.certificate"),
    ("sites[0].key=x", "sites.0.key"),
]
SITE = [
    ("site.id=", "site.id"),
    ("site.id=Site A", "site.id"),
    ("coordinator.endpoints=null", "could reach no coordinator"),
    ("coordinator.endpoints[0].cidr=0.0.0.0/0", "coordinator.endpoints.0.cidr"),
    ("coordinator.endpoints[0].cidr=", "coordinator.endpoints.0.cidr"),
    ("coordinator.address=https://federation.example", "coordinator.address"),
    ("proxy.endpoints[0].cidr=::/0", "proxy.endpoints.0"),
    ("proxy.url=http://proxy.example:3128", "needs both"),
    ("proxy.url=http://user:word@proxy.example:3128", "proxy.url"),
    ("data.existingClaim=", "set data.existingClaim"),
    ("data.hostPath=/srv", "hostPath"),
    ("identity.existingClaim=keys", "identity.existingSecret and identity.existingClaim"),
    ("identity.signing=abc", "identity"),
    ("join.existingSecret=site-invite", "leave identity.existingSecret empty"),
    ("join.fingerprint=ABCD-EFGH-IJKL-MNOP-QRST", "needs both the invitation"),
    ("join.fingerprint=abcd", "join.fingerprint"),
    ("datasets[0].path=/etc/larrey/site.toml", "datasets.0.path"),
    ("datasets[0].path=/data/../etc/passwd", "datasets.0.path"),
    ("datasets[0].epsilon=200", "datasets.0.epsilon"),
    ("datasets[0].patient=id", "patient"),
    ("datasets[0].source.kind=file", "datasets.0"),
    ("datasets[0].name=Cohort", "datasets.0.name"),
    ("people[0].key=-----BEGIN PRIVATE KEY-----", "people.0.key"),
    ("people[0].role=lead", "people.0.role"),
    ("people[0].passphrase=x", "passphrase"),
    ("policy.approvals={}", "policy.approvals"),
    ("policy.approvals={lead}", "policy.approvals.0"),
    ("policy.max_epsilon=3", "max_epsilon"),
    ("policy.completion_bucket_s=-1", "policy.completion_bucket_s"),
    ("policy.apps[0].name=survey", "policy.apps.0"),
    ("trainer.memory_mb=4096", "memory_mb"),
    ("trainer.device=cuda", "device"),
    ("agentMemory=8Gi", "leaves the trainer 0 MiB: it needs 1024"),
    ("resources.limits.memory=1.5Gi", "leaves the trainer 512 MiB: it needs 1024"),
    ("witness.syslog=logs.example:6514", "needs both witness.syslog and its addresses"),
    ("witness.file=../anchors", "witness.file"),
    ("witness.token=x", "token"),
    ("extraEnv[0].name=LARREY_SITE_CONFIG", "extraEnv.0.name"),
    ("service.type=NodePort", "service"),
]
HOSPITAL = [  # of a value that its minimal installation does not have
    ("datasets[3].source.endpoints=null", "datasets.3.source"),
    ("datasets[3].source.endpoints[0].cidr=0.0.0.0/0", "datasets.3.source.endpoints.0.cidr"),
    ("datasets[3].source.dsn=host=db password=x", "datasets.3.source.dsn"),
    ("datasets[3].source.dsn.password=x", "password"),
    ("datasets[3].source.query=password=x", "datasets.3.source.query"),
    ("datasets[3].source.max_rows=0", "datasets.3.source.max_rows"),
    ("datasets[3].source.dsn_file=/data/dsn", "dsn_file"),
    ("datasets[3].source.kind=oracle", "datasets.3.source.kind"),
    ("datasets[2].source.root=/", "datasets.2.source.root"),
    ("witness.syslog=", "needs both witness.syslog and its addresses"),
    ("ca.existingSecret=authority", "ca.existingSecret goes with identity.existingSecret"),
]
WEST = (
    "memberships[2].name=west,memberships[2].coordinator.address=west.example:443,"
    f"memberships[2].consortium.key=ed25519:{'D' * 43}"
)
MEMBERSHIPS = [
    ("memberships[0].name=first", "cannot be called 'first'"),
    ("memberships[0].name=north-", "cannot be called 'north-'"),
    ("memberships[0].consortium=null", "memberships.0"),
    ("memberships[0].consortium.key=x", "memberships.0.consortium.key"),
    ("memberships[0].ledger=own", "ledger"),
    (WEST, "membership 'west' could reach no coordinator"),
    ("memberships[0].coordinator.endpoints[0].cidr=0.0.0.0/0", "coordinator.endpoints.0.cidr"),
    ("memberships[0].identity.existingSecret=keys", "in a claim joining makes the keys"),
    ("memberships[0].join.fingerprint=", "needs both join.existingSecret and join.fingerprint"),
]
REFUSED = [
    *(("larrey-site", "memberships", *row) for row in MEMBERSHIPS),
    *(("larrey-coordinator", "minimal", *row) for row in BOTH + COORDINATOR),
    *(("larrey-site", "minimal", *row) for row in BOTH + SITE),
    *(("larrey-site", "hospital", *row) for row in HOSPITAL),
]


@pytest.mark.parametrize(("chart", "case", "setting", "said"), REFUSED)
def test_a_dangerous_or_misspelt_value_is_refused_by_name(helm, chart, case, setting, said):
    values = CHARTS / chart / "ci" / f"{case}-values.yaml"
    run = helm(
        "template", "r", str(CHARTS / chart), "-f", str(values), "--set", setting, check=False
    )
    assert run.returncode != 0
    assert said in run.stderr.replace("/", ".")  # Helm 4 writes image/tag, Helm 3 image.tag


@pytest.mark.parametrize("chart", ["larrey-coordinator", "larrey-site"])
def test_a_chart_without_values_is_refused(helm, chart):
    assert helm("template", "r", str(CHARTS / chart), check=False).returncode != 0
