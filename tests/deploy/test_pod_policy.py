"""What every rendered pod holds to: Pod Security "restricted", no rights, no secrets."""

import json

import pytest


def test_pods_run_as_an_ordinary_user(case):
    security = case.pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == 65532
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}


def test_containers_drop_every_capability_and_write_no_root_filesystem(case):
    for container in [*case.pod["containers"], *case.pod.get("initContainers", [])]:
        security = container["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["allowPrivilegeEscalation"] is False
        assert security["privileged"] is False
        assert security["readOnlyRootFilesystem"] is True


def test_pods_share_nothing_with_the_machine(case):
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(case.pod)
    assert not [volume for volume in case.pod["volumes"] if "hostPath" in volume]


def test_memory_and_processor_are_requested_and_limited(case):
    for bound in ["requests", "limits"]:
        assert {"cpu", "memory"} <= set(case.container["resources"][bound])


def test_only_claims_of_its_own_and_sized_temporary_folders_are_writable(case):
    volumes = {volume["name"]: volume for volume in case.pod["volumes"]}
    claims = {"state": "/var/lib/larrey"}
    if case.is_site:
        claims |= {"identity": "/var/lib/larrey-node", "witness": "/var/lib/larrey-witness"}
    containers = [*case.pod["containers"], *case.pod.get("initContainers", [])]
    mounts = [mount for container in containers for mount in container["volumeMounts"]]
    for mount in mounts:
        volume = volumes[mount["name"]]
        if "persistentVolumeClaim" in volume and not mount.get("readOnly"):
            assert mount["mountPath"] == claims[mount["name"]]
        elif not mount.get("readOnly"):
            assert mount["mountPath"] == "/tmp"
            assert volume["emptyDir"]["sizeLimit"]


def test_no_role_no_token_and_no_secret_is_rendered(case):
    kinds = {item["kind"] for item in case.objects}
    allowed = {"ConfigMap", "NetworkPolicy", "PersistentVolumeClaim", "ServiceAccount"}
    assert kinds <= allowed | {"StatefulSet", "Service"}
    assert case.pod["automountServiceAccountToken"] is False
    assert case.the("ServiceAccount")["automountServiceAccountToken"] is False
    assert case.pod["enableServiceLinks"] is False


def test_secrets_are_mounted_read_only_and_readable_by_the_program_alone(case):
    secrets = {item["name"]: item["secret"] for item in case.pod["volumes"] if "secret" in item}
    assert {secret["defaultMode"] for secret in secrets.values()} <= {0o440}
    containers = [*case.pod["containers"], *case.pod.get("initContainers", [])]
    mounts = [mount for container in containers for mount in container["volumeMounts"]]
    assert all(mount["readOnly"] for mount in mounts if mount["name"] in secrets)
    assert secrets.keys() <= {mount["name"] for mount in mounts}


def test_no_secret_can_be_seen_in_what_is_rendered(case):
    text = json.dumps(case.objects).lower()
    assert not [word for word in ("private key", "password", "passphrase") if word in text]


def test_one_writer_runs_and_its_state_outlives_the_release(case):
    assert case.the("StatefulSet")["spec"]["replicas"] == 1
    for claim in case.of_kind("PersistentVolumeClaim"):
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_an_existing_claim_is_used_and_none_is_made(coordinator):
    rendered = coordinator("existing-claim")
    claims = [volume.get("persistentVolumeClaim") for volume in rendered.pod["volumes"]]
    assert {"claimName": "journal"} in claims
    assert not rendered.of_kind("PersistentVolumeClaim")


def test_probes_ask_the_metrics_port(case):
    probes = {name: case.container[f"{name}Probe"] for name in ["startup", "liveness", "readiness"]}
    assert {name: probe["httpGet"]["path"] for name, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    ports = {port["name"]: port["containerPort"] for port in case.container["ports"]}
    assert ports["metrics"] == 9464
    assert {probe["httpGet"]["port"] for probe in probes.values()} == {"metrics"}


def test_flower_sends_no_telemetry_and_writes_to_the_temporary_folder(case):
    env = {entry["name"]: entry.get("value") for entry in case.container["env"]}
    assert env["FLWR_TELEMETRY_ENABLED"] == "0"
    assert env["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert env["PROMETHEUS_DISABLE_CREATED_SERIES"] == "true"
    assert env["HOME"] == "/tmp"
    assert env["FLWR_HOME"].startswith("/tmp/")


def test_every_environment_variable_is_named_once(case):
    names = [entry["name"] for entry in case.container["env"]]
    assert len(names) == len(set(names))


def test_the_hospital_table_is_read_only_twice(site):
    pod = site("minimal").pod
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "data"]
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "data"]
    assert volume["persistentVolumeClaim"] == {"claimName": "cohort", "readOnly": True}
    assert mount["readOnly"] is True


def test_a_gpu_is_asked_for_only_when_switched_on(site):
    plain, with_gpu = site("minimal"), site("gpu")
    assert "nvidia.com/gpu" not in plain.container["resources"]["limits"]
    assert not {"runtimeClassName", "tolerations"} & set(plain.pod)
    assert with_gpu.container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert with_gpu.pod["runtimeClassName"] == "nvidia"


@pytest.mark.parametrize("chart", ["larrey-coordinator", "larrey-site"])
def test_every_image_comes_from_the_mirror(render, chart, request):
    folder = request.path.parents[2] / "deploy" / "helm" / chart / "ci"
    rendered = render(folder / "mirror-values.yaml", "1.32.0")
    pod = rendered.pod
    images = [item["image"] for item in pod["containers"] + pod.get("initContainers", [])]
    assert all(image.startswith("mirror.hospital.example:5000/") for image in images)
    assert pod["imagePullSecrets"] == [{"name": "mirror-login"}]


def test_a_digest_wins_over_a_tag(coordinator):
    assert "@sha256:0f1e2d3c" in coordinator("digest").container["image"]
