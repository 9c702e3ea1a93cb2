"""Every metric of the coordinator, with its labels and what it means. Counts nothing itself."""

from __future__ import annotations

from larrey_protocol.meters import Meters

__all__ = ["CHECKED", "ROUND_OUTCOMES", "STOPS", "Families"]

CHECKED = (  # why an update that came did not pass the coordinator's checks
    "receipt-missing",
    "receipt-mismatch",
    "bad-signature",
    "update-missing",
    "update-not-finite",
    "update-over-norm",
    "update-wrong-tensors",
    "update-malformed",
    "update-unchecked",
)
ROUND_OUTCOMES = ("completed", "no_quorum", "halted", "retried")
STOPS = ("pause", "halt")
_CALL_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0)
_TASK_S = (1, 10, 60, 300, 900, 3600, 14400, 43200)
_ROUND_S = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 43200)
_BYTES = tuple(float(4**power) for power in range(5, 17, 2))  # 1 KiB to 1 GiB


class Families(Meters):
    """The families of one coordinator; those about a study begin with the label ``study``."""

    def __init__(self) -> None:
        super().__init__("larrey_")
        self._of_coordinator()
        self._of_studies()
        self._of_rounds()
        self._of_sites()

    def _of_coordinator(self) -> None:
        self.info = self.gauge("build_info", "Constant 1", "version", "flwr_version")
        self.auth = self.counter("auth_failures", "Callers refused for who they are", "reason")
        call = ("service", "method")
        self.requests = self.counter("grpc_requests", "Calls of the gRPC port", *call, "code")
        text = "Duration of calls, long polls excluded"
        self.durations = self.histogram(
            "grpc_request_duration_seconds", text, *call, buckets=_CALL_S
        )
        text = "notAfter of the coordinator's certificates"
        self.expiry = self.gauge("tls_certificate_expiry_timestamp_seconds", text, "role")
        text = "1 while that keeps the state folder from being written"
        self.storage = self.gauge("coordinator_storage_fault", text, "code")
        self.free = self.gauge("storage_free_bytes", "Free space of the volume", "volume")
        self.capacity = self.gauge("storage_capacity_bytes", "Size of the volume", "volume")
        text = "Studies without series of their own, because too many are open"
        self.unshown = self.gauge("studies_unshown", text)

    def _of_studies(self) -> None:
        self.runs = self.counter("runs", "Studies ended", "study", "outcome")
        self.active = self.gauge("run_active", "1 while a study has rounds to do", "study")
        text = "1 while an order to pause or halt holds"
        self.stopped = self.gauge("run_stopped", text, "study", "stop")
        text = "1 while a study stands still because of the coordinator itself"
        self.stalled = self.gauge("run_stalled", text, "study")
        text = "1 while a round waits for sites to begin"
        self.gathering = self.gauge("run_gathering", text, "study")
        text = "Models that were lost or altered on disk and made again"
        self.rebuilt = self.counter("checkpoints_rebuilt", text, "study")
        self.quorum = self.gauge("quorum_required", "Least sites for a round", "study")
        self.enrolled = self.gauge("sites_enrolled", "Sites of the study", "study")
        self.available = self.gauge("sites_available", "Sites that are there", "study")
        text = "Sites that a person left out until further notice"
        self.excluded = self.gauge("sites_excluded", text, "study")

    def _of_rounds(self) -> None:
        text = "Round in progress, 0 if none"
        self.number = self.gauge("round_number", text, "study")
        self.planned = self.gauge("rounds_planned", "Rounds the study is to do", "study")
        text = "Attempts of rounds that ended"
        self.rounds = self.counter("rounds", text, "study", "outcome")
        text = "When the round in progress was opened, 0 if none is open"
        self.round_start = self.gauge("round_start_timestamp_seconds", text, "study")
        text = "When a round was last applied; before the first, when the study was launched"
        self.last_round = self.gauge("round_last_completed_timestamp_seconds", text, "study")
        text = "The most that a round may take"
        self.deadline = self.gauge("round_deadline_seconds", text, "study")
        text = "Wall time of ended rounds"
        self.round_seconds = self.histogram(
            "round_duration_seconds", text, "study", buckets=_ROUND_S
        )
        text = "Updates of the open round that wait to be aggregated"
        self.waiting = self.gauge("round_replies_waiting", text, "study")
        text = "Size of updates as they came"
        self.update_bytes = self.histogram("update_size_bytes", text, "study", buckets=_BYTES)

    def _of_sites(self) -> None:
        both = ("study", "site")
        text = "When the site's next training window opens, 0 inside one"
        self.window = self.gauge("coordinator_site_window_opens_timestamp_seconds", text, "site")
        text = "notAfter of the certificate that the site last called with"
        self.site_expiry = self.gauge(
            "coordinator_site_certificate_expiry_timestamp_seconds", text, "site"
        )
        text = "Bytes of requests received from a site"
        self.received_bytes = self.counter("received_bytes", text, "site")
        text = "Last authenticated contact; before the first, when the study became known"
        self.last_seen = self.gauge("coordinator_site_last_seen_timestamp_seconds", text, *both)
        text = "Silence after which a site counts as away"
        self.silence = self.gauge("coordinator_site_silence_limit_seconds", text, *both)
        text = "From the request to the answer, transfers included"
        self.task_seconds = self.histogram(
            "coordinator_site_task_duration_seconds", text, *both, "kind", buckets=_TASK_S
        )
        self.received = self.counter("updates_received", "Updates that arrived whole", *both)
        text = "Answers that came after their round was over"
        self.late = self.counter("updates_late", text, *both)
        text = "Answers not counted, by the site's or the coordinator's code"
        self.rejected = self.counter("updates_rejected", text, *both, "reason")
        text = "Epsilon as the site's last receipt says, at the study's delta"
        self.spent = self.gauge("privacy_epsilon_spent", text, *both)
        text = "Epsilon that the study declares"
        self.budget = self.gauge("privacy_epsilon_budget", text, *both)

    def forget(self, study: str) -> None:
        """Remove every series of a study."""
        for family in vars(self).values():
            if "study" in getattr(family, "_labelnames", ()):
                family.remove_by_labels({"study": study})
