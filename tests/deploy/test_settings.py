"""The settings that charts write are settings that the programs accept, and all of them."""

from pathlib import Path

import pytest

from larrey_client.settings import SiteSettings, load_settings
from larrey_client.site_files import add_membership, site_toml
from larrey_client.sources_settings import ImageSource, SqlSource
from larrey_protocol.errors import FileError
from larrey_protocol.tomlfile import parse_toml
from larrey_server.settings import CoordinatorSettings, split_address

KEY = "ed25519:" + "A" * 43


def test_the_coordinator_accepts_its_settings(coordinator):
    rendered = coordinator("minimal")
    settings = _coordinator_settings(rendered)
    ports = {port["name"]: port["containerPort"] for port in rendered.container["ports"]}
    assert split_address(settings.listen.address) == ("0.0.0.0", ports["grpc"])
    assert split_address(settings.listen.metrics) == ("0.0.0.0", ports["metrics"])


def test_a_coordinator_needs_no_list_of_sites_and_no_key_of_its_authority(coordinator):
    settings = _coordinator_settings(coordinator("minimal"))
    assert (settings.sites, settings.operators) == ((), ())
    assert settings.identity.authority_key is None


@pytest.mark.parametrize("name", ["minimal", "members"])
def test_what_the_coordinator_reads_and_writes_is_mounted(coordinator, name):
    rendered = coordinator(name)
    settings = _coordinator_settings(rendered)
    identity = settings.identity
    files = [identity.certificate, identity.key, identity.authority, identity.signing_key]
    files += [identity.authority_key] if identity.authority_key else []
    assert {str(path.parent) for path in files} <= _mounts(rendered)
    assert str(settings.coordinator.state) in _mounts(rendered)
    entries = [*settings.sites, *settings.operators]
    assert {str(e.certificate) for e in entries} <= rendered.the("ConfigMap")["data"].keys()


def test_a_coordinator_that_holds_the_authority_can_write_its_certificate(coordinator):
    rendered = coordinator("members")
    settings = _coordinator_settings(rendered)
    (copy,) = rendered.pod["initContainers"]
    assert copy["command"][-1] == str(settings.identity.certificate)
    assert settings.identity.certificate.parent == settings.coordinator.state
    assert (settings.coordinator.max_sites, settings.coordinator.access_log_months) == (50, 24)
    assert [entry.name for entry in settings.sites] == ["site-a"]


def test_a_site_accepts_its_settings(site_case, tmp_path):
    settings = _load(site_case, tmp_path)
    assert settings.site.name == "site-a"
    assert settings.site.metrics == "0.0.0.0:9464"


def test_every_file_of_a_site_lies_in_a_mount(site_case, tmp_path):
    settings = _load(site_case, tmp_path)
    identity = settings.identity
    files = [identity.certificate, identity.key, identity.signing_key]
    files += [settings.coordinator.authority, settings.site.state / "here"]
    for one in settings.memberships:
        files += [one.identity.certificate, one.identity.key, one.coordinator.authority]
    files += [settings.witness.file] if settings.witness.file else []
    for dataset in settings.datasets:
        files += [value for _, value in iter(dataset.origin) if isinstance(value, Path)]
    mounts = _mounts(site_case)
    assert [file for file in files if not mounts & set(map(str, file.parents))] == []


def test_values_say_everything_that_a_hospital_decides(site, tmp_path):
    settings = _load(site("hospital"), tmp_path)
    assert [(p.name, p.role) for p in settings.people] == [("officer", "dpo"), ("engineer", "it")]
    assert settings.policy.approvals == ("it", "dpo")
    assert settings.policy.completion_bucket_s == 10
    assert settings.policy.allow_without_dp == ("stroke",)
    assert settings.policy.apps[0].unaccounted is True
    assert settings.policy.model_fields_set == settings.policy.__class__.model_fields.keys()
    assert settings.witness.syslog == "logs.hospital.example:6514"
    assert str(settings.witness.file) == "/var/lib/larrey-witness/site-a.anchors"
    assert [d.unit for d in settings.datasets] == ["patient_id", None, *["patient_id"] * 2, None]


def test_a_query_lies_beside_the_settings_and_its_login_in_a_mounted_secret(site, tmp_path):
    rendered = site("hospital")
    _, _, images, warehouse, laboratory = _load(rendered, tmp_path).datasets
    assert isinstance(images.origin, ImageSource)
    source = warehouse.origin
    assert isinstance(source, SqlSource)
    assert (source.refresh, source.max_rows) == ("approval", 1_000_000)
    assert str(source.dsn_file) == "/run/secrets/larrey/dsn/warehouse/connection"
    volumes = {item["name"]: item.get("secret") for item in rendered.pod["volumes"]}
    assert volumes["dsn-warehouse"] == {"secretName": "warehouse-dsn", "defaultMode": 0o440}
    queries = rendered.the("ConfigMap")["data"]
    assert source.query_file == Path("/etc/larrey/warehouse.sql")
    assert "FROM cohort.stays\n WHERE" in queries["warehouse.sql"]
    assert queries["laboratory.sql"].startswith("SELECT patient_id, ldl")
    assert laboratory.origin.dsn_file.name == "dsn"


def test_trainer_and_agent_share_the_memory_of_the_pod(site, tmp_path):
    assert _load(site("minimal"), tmp_path).trainer.memory_mb == 8192 - 1024
    assert _load(site("hospital"), tmp_path).trainer.memory_mb == 8192 - 1536


@pytest.mark.parametrize(
    ("limit", "mebibytes"),
    [("4Gi", 4096), ("4096Mi", 4096), ("4.5Gi", 4608), ("8G", 7629), ("4294967296", 4096)],
)
def test_a_memory_limit_is_read_in_every_unit_of_kubernetes(helm, site, limit, mebibytes):
    values, chart = site("minimal").values, site("minimal").values.parents[1]
    wanted = ["--set", f"resources.limits.memory={limit}", "-s", "templates/config.yaml"]
    text = helm("template", "r", str(chart), "-f", str(values), *wanted).stdout
    assert f"memory_mb = {mebibytes - 1024}" in text


def test_the_device_of_the_trainer_follows_the_gpu(site, tmp_path):
    devices = [_load(site(name), tmp_path).trainer.device for name in ("minimal", "gpu")]
    assert devices == ["cpu", "cuda"]


def test_keys_in_a_secret_are_read_only_and_keys_in_a_claim_are_not(site, tmp_path):
    for name, is_read_only in [("minimal", True), ("join", False)]:
        rendered = site(name)
        key = _load(rendered, tmp_path).identity.key
        (mount,) = [m for m in rendered.container["volumeMounts"] if m["name"] == "identity"]
        assert str(key).startswith(mount["mountPath"] + "/")
        assert mount.get("readOnly", False) is is_read_only


def test_the_node_finds_its_keys_where_joining_puts_them(site, tmp_path):
    made = site_toml(Path("/var/lib/larrey-node/site.toml"), "a-b", "c:1", (KEY, "F"), [])
    home = Path("/var/lib/larrey-node")
    expected = parse_toml(made, SiteSettings, "site.toml")
    settings = _load(site("join"), tmp_path)
    assert settings.coordinator.authority == home / expected.coordinator.authority
    assert settings.identity.model_dump() == {
        name: home / path for name, path in iter(expected.identity)
    }


def test_each_membership_s_keys_lie_where_joining_puts_them(site, tmp_path):
    home = tmp_path / "node"
    home.mkdir()
    made = home / "site.toml"
    made.write_text(site_toml(made, "site-a", "federation.example:443", (KEY, "F"), []))
    add_membership(made, "north", "north.example:443", ("ed25519:" + "B" * 43, "F"))
    (expected,) = load_settings(made).memberships
    found, other = _load(site("memberships"), tmp_path).memberships
    names = {"authority": expected.coordinator.authority, **dict(expected.identity)}
    there = {"authority": found.coordinator.authority, **dict(found.identity)}
    claim = Path("/var/lib/larrey-node")
    assert there == {name: claim / path.relative_to(home) for name, path in names.items()}
    assert (found.name, found.coordinator.address) == ("north", "north.example:443")
    assert (other.name, other.consortium.key) == ("east", "ed25519:" + "C" * 42 + "A")
    assert _load(site("memberships"), tmp_path).identity == _load(site("join"), tmp_path).identity


def test_a_membership_s_keys_in_a_secret_are_mounted_apart(site, tmp_path):
    rendered = site("memberships-secret")
    (north,) = _load(rendered, tmp_path).memberships
    mounts = {m["name"]: m for m in rendered.container["volumeMounts"]}
    assert mounts["identity-north"]["readOnly"] is True
    place = Path(mounts["identity-north"]["mountPath"])
    assert north.identity.certificate == place / "tls.crt"
    assert north.identity.key == place / "tls.key"
    assert north.coordinator.authority == place / "ca.crt"
    volumes = {item["name"]: item.get("secret") for item in rendered.pod["volumes"]}
    assert volumes["identity-north"] == {"secretName": "north-identity", "defaultMode": 0o440}


def test_one_membership_is_written_as_before(site):
    assert "memberships" not in site("minimal").the("ConfigMap")["data"]["site.toml"]


def test_the_authority_of_the_coordinator_may_come_apart_from_the_identity(site, tmp_path):
    places = [
        str(_load(site(name), tmp_path).coordinator.authority) for name in ("minimal", "network")
    ]
    secrets = "/run/secrets/larrey"
    assert places == [f"{secrets}/identity/ca.crt", f"{secrets}/ca/ca.crt"]


def test_the_programs_would_refuse_a_misspelt_key(coordinator):
    text = coordinator("minimal").the("ConfigMap")["data"]["coordinator.toml"]
    with pytest.raises(FileError, match="certificat"):
        parse_toml(text.replace("certificate =", "certificat ="), CoordinatorSettings, "x.toml")


def _coordinator_settings(rendered):
    text = rendered.the("ConfigMap")["data"]["coordinator.toml"]
    return parse_toml(text, CoordinatorSettings, "coordinator.toml")


def _load(rendered, folder):
    path = folder / "site.toml"
    path.write_text(rendered.the("ConfigMap")["data"]["site.toml"])
    return load_settings(path)


def _mounts(rendered):
    return {mount["mountPath"] for mount in rendered.container["volumeMounts"]}
