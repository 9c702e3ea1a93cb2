"""A real Prometheus and Alertmanager watch real programs: one is killed, somebody hears of it.

The rules are the shipped ones but for their patience, which is none here.
"""

import json
import subprocess
import threading
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from larrey_lab.federation.processes import Federation
from larrey_lab.federation.workspace import SitePlan, create_workspace, free_port
from larrey_protocol.canonical import digest_bytes
from tests.operations.promql import ROOT, RULES
from tests.system.hospitals import APPS, DATASET, Hospitals, app_path, make_study, table, until

TOOLS = ROOT / ".tools"
SITES = ("alpha", "beta")
TICK = "200ms"
# Debian's Alertmanager reads its templates there and nowhere else: give it a folder of its own.
THERE = "/usr/share/prometheus/alertmanager"
APART = (
    *("unshare", "--map-root-user", "--mount", "sh", "-c"),
    (
        f"mount -t tmpfs none /usr/share && mkdir -p {THERE} && cp '{TOOLS}'/*.tmpl {THERE}"
        ' && exec "$@"'
    ),
    "sh",
)


class Webhook(ThreadingHTTPServer):
    """Where Alertmanager sends what a person would read: the last status of each alert."""

    daemon_threads = True

    def __init__(self):
        self.said = {}
        super().__init__(("127.0.0.1", 0), _Reader)

    def heard(self, alert, status):
        return (alert, status) in self.said.items()


class _Reader(BaseHTTPRequestHandler):
    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for one in message["alerts"]:
            labels = one["labels"]
            about = labels.get("site") or labels.get("study") or labels.get("instance", "")
            self.server.said[message["receiver"], labels["alertname"], about] = one["status"]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def webhook():
    server = Webhook()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def running(log, *command):
    with log.open("wb") as file:
        process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=file)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def federation_of(folder):
    """Return two hospitals whose nodes, and their coordinator, are scraped; nothing runs yet."""
    app = {
        "name": "held",
        "module": "held_app:app",
        "digest": digest_bytes((APPS / "held_app.py").read_bytes()),
        "unaccounted": True,
        "metrics": True,
    }
    policy = {"allow_without_dp": [DATASET], "apps": [app], "min_units": 20}
    plans = []
    for number, name in enumerate(SITES):
        data = folder / f"{name}.csv"
        data.write_text(table(number))
        plans.append(SitePlan(name, data, DATASET, unit="pid", policy=policy))
    made = create_workspace(folder / "federation", plans, metrics=True)
    for name in SITES:
        file = made.site(name)
        address = f'metrics = "127.0.0.1:{free_port()}"'
        file.write_text(file.read_text().replace('metrics = ""', address))
    return Hospitals(Federation(made))


def address_in(file):
    line = next(one for one in file.read_text().splitlines() if one.startswith("metrics"))
    return line.split('"')[1]


@contextmanager
def watched(folder, made, webhook):
    """Run Prometheus and Alertmanager over a federation; yield what asks Prometheus a query."""
    manager, prometheus = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    for file in RULES.glob("*.rules.yaml"):
        rules = yaml.safe_load(file.read_text())
        for group in rules["groups"]:
            for rule in group["rules"]:
                rule.pop("for", None)
        (folder / file.name).write_text(yaml.safe_dump(rules))
    routes = yaml.safe_load((RULES / "alertmanager.yaml").read_text())
    routes["route"] |= {"group_wait": TICK, "group_interval": "1s"}
    for receiver in routes["receivers"]:
        for one in receiver.get("webhook_configs", ()):
            one["url"] = f"http://127.0.0.1:{webhook.server_address[1]}/"
    (folder / "alertmanager.yaml").write_text(yaml.safe_dump(routes))
    space = made.federation.workspace
    nodes = [
        {"targets": [address_in(space.site(name))], "labels": {"instance": name}} for name in SITES
    ]
    coordinator = [{"targets": [address_in(space.coordinator)]}]
    config = {
        "global": {"scrape_interval": TICK, "scrape_timeout": TICK, "evaluation_interval": TICK},
        "rule_files": ["*.rules.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [manager]}]}]},
        "scrape_configs": [
            {"job_name": "larrey-coordinator", "static_configs": coordinator},
            {"job_name": "larrey-site", "static_configs": nodes},
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with ExitStack() as stack:
        stack.enter_context(
            running(
                folder / "alertmanager.log",
                *APART,
                TOOLS / "prometheus-alertmanager",
                f"--config.file={folder / 'alertmanager.yaml'}",
                f"--storage.path={folder / 'alerts'}",
                f"--web.listen-address={manager}",
                "--cluster.listen-address=",
            )
        )
        stack.enter_context(
            running(
                folder / "prometheus.log",
                TOOLS / "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'series'}",
                f"--web.listen-address={prometheus}",
                "--rules.alert.resend-delay=200ms",
            )
        )

        def ask(query):
            url = f"http://{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    return json.load(answer)["data"]["result"]
            except OSError:  # it starts
                return []

        yield ask


@pytest.fixture(autouse=True)
def tools():
    names = ("prometheus", "prometheus-alertmanager", "default.tmpl", "email.tmpl")
    if not all((TOOLS / name).exists() for name in names):
        pytest.skip("needs Prometheus and Alertmanager: run `make tools`")
    if subprocess.run([*APART, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this account may not make mount namespaces")


def test_a_killed_site_reaches_the_pager_and_is_taken_back_when_it_is_up(
    tmp_path, webhook, monkeypatch
):
    for name, value in app_path().items():
        monkeypatch.setenv(name, value)
    made = federation_of(tmp_path)
    down, lost = ("tickets", "LarreySiteDown", "beta"), ("pager", "LarreyQuorumLost", "watched")
    with made.federation:
        made.federation.start_coordinator()
        made.federation.start_sites()
        with watched(tmp_path, made, webhook) as ask:
            for name in SITES:
                made.hold(name)
            sites = [{"name": name, "patients": 25} for name in SITES]
            made.launch(make_study("watched", sites=sites))
            until(lambda: ask("larrey_sites_available == 2 and larrey_run_active == 1") != [])
            until(lambda: len(ask('up{job="larrey-site"} == 1')) == len(SITES))
            until(
                lambda: ask("larrey_round_replies_waiting == 0 and larrey_round_number == 1") != []
            )
            until(lambda: not ask('ALERTS{alertname=~"LarreyQuorumLost|LarreySiteDown"}'))
            assert not {lost, down} & set(webhook.said)
            made.federation.kill("beta")
            until(lambda: webhook.heard(lost, "firing") and webhook.heard(down, "firing"), 15)
            made.federation.start_sites(["beta"])
            until(lambda: webhook.heard(lost, "resolved") and webhook.heard(down, "resolved"), 15)
            for name in SITES:
                made.release(name)
