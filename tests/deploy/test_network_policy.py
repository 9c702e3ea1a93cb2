"""Who may talk to whom: sites to their coordinator, callers to it, monitoring to both."""

METRICS = {"protocol": "TCP", "port": 9464}


def test_both_directions_are_closed_by_default(case):
    policy = case.the("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    for rule in policy["ingress"] + policy["egress"]:
        assert rule["ports"]
        assert rule.get("from") or rule.get("to")


def test_the_policy_selects_exactly_the_pod(case):
    selector = case.the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    labels = case.the("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert selector
    assert selector.items() <= labels.items()


def test_metrics_are_for_the_monitoring_namespace_alone(case):
    rules = case.the("NetworkPolicy")["spec"]["ingress"]
    sources = [rule["from"] for rule in rules if METRICS in rule["ports"]]
    namespace = "prometheus" if case.values.stem == "network-values" else "monitoring"
    assert sources == [[_namespace(namespace)]]


def test_a_site_has_no_service_and_lets_only_monitoring_in(site_case):
    assert not site_case.of_kind("Service")
    (rule,) = site_case.the("NetworkPolicy")["spec"]["ingress"]
    assert rule["ports"] == [METRICS]


def test_a_site_reaches_its_coordinator_and_dns(site):
    dns, coordinator = site("minimal").the("NetworkPolicy")["spec"]["egress"]
    assert dns["to"] == [_namespace("kube-system")]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert coordinator == _way("192.0.2.10/32", 443)


def test_a_site_reaches_each_database_and_log_collector_that_the_values_name_once(site):
    _, coordinator, *others = site("hospital").the("NetworkPolicy")["spec"]["egress"]
    assert coordinator == _way("192.0.2.10/32", 443)
    assert others == [_way("10.9.8.7/32", 6514), _way("10.2.3.4/32", 5432)]


def test_a_site_reaches_the_coordinator_of_each_membership(site):
    _, *coordinators = site("memberships").the("NetworkPolicy")["spec"]["egress"]
    places = ["192.0.2.10/32", "198.51.100.7/32", "203.0.113.9/32"]
    assert coordinators == [_way(place, 443) for place in places]


def test_a_site_behind_a_proxy_reaches_the_proxy_and_not_the_coordinator(site):
    rendered = site("proxy")
    assert rendered.the("NetworkPolicy")["spec"]["egress"][1:] == [_way("10.1.2.3/32", 3128)]
    env = {entry["name"]: entry.get("value") for entry in rendered.container["env"]}
    assert env["https_proxy"] == env["HTTPS_PROXY"] == "http://proxy.hospital.example:3128"
    assert "127.0.0.1" in env["no_proxy"]
    assert env["no_proxy"] == env["NO_PROXY"]


def test_the_login_of_a_proxy_comes_from_a_secret(site):
    env = {entry["name"]: entry for entry in site("proxy-login").container["env"]}
    assert env["https_proxy"]["valueFrom"] == {
        "secretKeyRef": {"name": "proxy-login", "key": "url"}
    }


def test_the_coordinator_calls_nobody(coordinator):
    assert coordinator("minimal").the("NetworkPolicy")["spec"]["egress"] == []


def test_a_load_balancer_carries_the_grpc_port_for_named_networks_only(coordinator):
    rendered = coordinator("loadbalancer")
    public = [item["spec"] for item in rendered.of_kind("Service") if "type" in item["spec"]]
    (front,) = [spec for spec in public if spec["type"] == "LoadBalancer"]
    assert [port["targetPort"] for port in front["ports"]] == ["grpc"]
    assert front["loadBalancerSourceRanges"] == ["192.0.2.0/24", "2001:db8::/32"]


def _namespace(name):
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _way(cidr, port):
    return {"to": [{"ipBlock": {"cidr": cidr}}], "ports": [{"protocol": "TCP", "port": port}]}
