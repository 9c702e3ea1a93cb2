"""Values that would open, blur or break an installation are refused before installing."""

from pathlib import Path

import pytest

CHARTS = Path(__file__).resolve().parents[2] / "deploy" / "helm"

BOTH = [
    ("configg=x", "configg"),
    ("image.tagg=1", "tagg"),
    ("image.tag=latest", "image.tag"),
    ("image.digest=sha256:1", "image.digest"),
    ("image.registry=", "no image registry"),
    ("config=", "config"),
    ("config=[identity]", "config holds [identity], which the chart writes"),
    ("config=-----BEGIN PRIVATE KEY-----", "config"),
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
    ("certificates.a\\.crt=-----BEGIN PRIVATE KEY-----", "certificates"),
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
    ("data.existingClaim=", "data.existingClaim"),
    ("data.hostPath=/srv", "hostPath"),
    ("identity.existingSecret=", "identity.existingSecret"),
    ("service.type=NodePort", "service"),
]
REFUSED = [
    *(("larrey-coordinator", *row) for row in BOTH + COORDINATOR),
    *(("larrey-site", *row) for row in BOTH + SITE),
]


@pytest.mark.parametrize(("chart", "setting", "said"), REFUSED)
def test_a_dangerous_or_misspelt_value_is_refused_by_name(helm, chart, setting, said):
    values = CHARTS / chart / "ci" / "minimal-values.yaml"
    run = helm(
        "template", "r", str(CHARTS / chart), "-f", str(values), "--set", setting, check=False
    )
    assert run.returncode != 0
    assert said in run.stderr.replace("/", ".")  # Helm 4 writes image/tag, Helm 3 image.tag


@pytest.mark.parametrize("chart", ["larrey-coordinator", "larrey-site"])
def test_a_chart_without_values_is_refused(helm, chart):
    assert helm("template", "r", str(CHARTS / chart), check=False).returncode != 0
