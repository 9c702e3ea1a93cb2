"""The settings that charts write are settings that the programs accept."""

import pytest

from larrey_client.settings import SiteSettings
from larrey_protocol.errors import FileError
from larrey_protocol.tomlfile import parse_toml
from larrey_server.settings import CoordinatorSettings, split_address


def test_the_coordinator_accepts_its_settings(coordinator):
    rendered = coordinator("minimal")
    settings = _coordinator_settings(rendered)
    ports = {port["name"]: port["containerPort"] for port in rendered.container["ports"]}
    assert split_address(settings.listen.address) == ("0.0.0.0", ports["grpc"])
    assert split_address(settings.listen.metrics) == ("0.0.0.0", ports["metrics"])


def test_what_the_coordinator_reads_and_writes_is_mounted(coordinator):
    rendered = coordinator("minimal")
    settings = _coordinator_settings(rendered)
    mounts = {mount["mountPath"] for mount in rendered.container["volumeMounts"]}
    identity = settings.identity
    secrets = [identity.certificate, identity.key, identity.authority, identity.signing_key]
    assert {str(path.parent) for path in secrets} | {str(settings.coordinator.state)} <= mounts
    certificates = {str(entry.certificate) for entry in settings.sites}
    assert certificates <= set(rendered.the("ConfigMap")["data"])


@pytest.mark.parametrize("name", ["minimal", "network", "proxy"])
def test_a_site_accepts_its_settings(site, name):
    settings = parse_toml(_site_toml(site(name)), SiteSettings, "site.toml")
    assert settings.site.name == "site-a"
    assert settings.site.metrics == "0.0.0.0:9464"


def test_what_a_site_reads_and_writes_is_mounted(site):
    rendered = site("network")
    settings = parse_toml(_site_toml(rendered), SiteSettings, "site.toml")
    mounts = {mount["mountPath"] for mount in rendered.container["volumeMounts"]}
    identity = settings.identity
    files = [identity.certificate, identity.key, identity.signing_key]
    files += [settings.coordinator.authority, settings.datasets[0].path]
    assert {str(path.parent) for path in files} | {str(settings.site.state)} <= mounts


def test_the_authority_of_the_coordinator_may_come_apart_from_the_identity(site):
    assert 'authority = "/run/secrets/larrey/identity/ca.crt"' in _site_toml(site("minimal"))
    assert 'authority = "/run/secrets/larrey/ca/ca.crt"' in _site_toml(site("network"))


def test_the_programs_would_refuse_a_misspelt_key(coordinator):
    text = coordinator("minimal").the("ConfigMap")["data"]["coordinator.toml"]
    with pytest.raises(FileError, match="certificat"):
        parse_toml(text.replace("certificate =", "certificat ="), CoordinatorSettings, "x.toml")


def _coordinator_settings(rendered):
    text = rendered.the("ConfigMap")["data"]["coordinator.toml"]
    return parse_toml(text, CoordinatorSettings, "coordinator.toml")


def _site_toml(rendered):
    return rendered.the("ConfigMap")["data"]["site.toml"]
