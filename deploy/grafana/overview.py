"""The board of the whole consortium."""

from panels import DAY_S, Board, Row, lines, quantile, stat, table

__all__ = ["OVERVIEW"]


OVERVIEW = Board(
    "larrey-overview",
    "Larrey: consortium overview",
    "Is the coordinator well, and do its studies go on?",
    (),
    (
        Row(
            "Now",
            (
                stat("Studies with rounds to do", "short", "sum(larrey_run_active)", "Running."),
                stat(
                    "Studies that stand still",
                    "short",
                    "sum(larrey_run_stalled)",
                    "Because of the coordinator itself.",
                    1,
                ),
                stat(
                    "Alerts that page",
                    "short",
                    'count(ALERTS{alertname=~"Larrey.+",alertstate="firing",severity="critical"})'
                    " or vector(0)",
                    "Critical alerts that fire.",
                    1,
                ),
                stat(
                    "Days of the certificate",
                    "d",
                    f"(min(larrey_tls_certificate_expiry_timestamp_seconds) - time()) / {DAY_S}",
                    "After its end no hospital connects.",
                ),
                stat(
                    "Studies not shown",
                    "short",
                    "larrey_studies_unshown",
                    "Too many are open for series of their own.",
                    1,
                ),
                stat(
                    "Version",
                    "string",
                    "larrey_build_info",
                    "Of the coordinator.",
                    legend="{{version}} on flwr {{flwr_version}}",
                ),
            ),
        ),
        Row(
            "Studies",
            (
                lines(
                    "Share of sites that are there",
                    "percentunit",
                    "By study.",
                    ("study:larrey_sites_available:ratio", "{{study}}"),
                ),
                lines(
                    "Attempts of rounds an hour",
                    "short",
                    "By how they ended.",
                    ("sum by (outcome) (increase(larrey_rounds_total[1h]))", "{{outcome}}"),
                ),
                table(
                    "Studies ended in 30 days",
                    "short",
                    "By outcome.",
                    ("sum by (study, outcome) (increase(larrey_runs_total[30d])) > 0", ""),
                ),
            ),
        ),
        Row(
            "The port that hospitals call",
            (
                lines(
                    "Calls",
                    "ops",
                    "A second, by method.",
                    ("sum by (method) (rate(larrey_grpc_requests_total[5m]))", "{{method}}"),
                ),
                lines(
                    "Share of calls that failed",
                    "percentunit",
                    "At the coordinator's side.",
                    ("job:larrey_grpc_errors:ratio_rate10m", "failed"),
                ),
                lines(
                    "Duration of calls, 95 of 100",
                    "s",
                    "Long polls excluded.",
                    (
                        quantile(
                            0.95, "larrey_grpc_request_duration_seconds_bucket", "method", "5m"
                        ),
                        "{{method}}",
                    ),
                ),
                lines(
                    "Callers refused",
                    "short",
                    "In an hour, by reason.",
                    ("sum by (reason) (increase(larrey_auth_failures_total[1h]))", "{{reason}}"),
                ),
                lines(
                    "Bytes received",
                    "Bps",
                    "From all sites.",
                    ("sum(rate(larrey_received_bytes_total[5m]))", "received"),
                ),
            ),
        ),
        Row(
            "The machine",
            (
                lines(
                    "Free space",
                    "percentunit",
                    "Of the state folder's volume.",
                    ("larrey_storage_free_bytes / larrey_storage_capacity_bytes", "{{volume}}"),
                ),
                lines(
                    "State folder takes no writes",
                    "short",
                    "1 while a code keeps it from being written.",
                    ("larrey_coordinator_storage_fault", "{{code}}"),
                ),
                lines(
                    "Memory of the coordinator",
                    "bytes",
                    "Resident.",
                    ('process_resident_memory_bytes{job="larrey-coordinator"}', "resident"),
                ),
            ),
        ),
    ),
)
