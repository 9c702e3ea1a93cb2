"""The boards that a hospital looks at: its node, and the machine under it."""

from panels import DAY_S, Board, Row, lines, quantile, stat

__all__ = ["HOSPITAL", "HOST"]

_NODE = ("instance", "label_values(larrey_site_build_info, instance)")
_I = '{instance=~"$instance"}'

HOSPITAL = Board(
    "larrey-node",
    "Larrey: hospital node",
    "For the hospital alone: its node, its budgets, what it refused.",
    (_NODE,),
    (
        Row(
            "Now",
            (
                stat("Connected", "bool_yes_no", f"larrey_site_connected{_I}", "Last call."),
                stat(
                    "Since the last contact",
                    "s",
                    f"time() - larrey_site_last_contact_timestamp_seconds{_I}",
                    "Or since the start.",
                    1800,
                ),
                stat(
                    "Proposals that wait",
                    "short",
                    f"larrey_site_pending_approvals{_I}",
                    "For a person of this hospital.",
                    1,
                ),
                stat("May train now", "bool_yes_no", f"larrey_site_window_open{_I}", "Its hours."),
                stat(
                    "Days of the certificate",
                    "d",
                    f"(larrey_site_certificate_expiry_timestamp_seconds{_I} - time()) / {DAY_S}",
                    "Renewed by itself.",
                ),
                stat(
                    "Version",
                    "string",
                    f"larrey_site_build_info{_I}",
                    "Of the node.",
                    legend="{{version}}",
                ),
            ),
        ),
        Row(
            "Work",
            (
                lines("State", "short", "What it does.", (f"larrey_site_state{_I}", "{{state}}")),
                lines(
                    "Requests that ended",
                    "short",
                    "In an hour.",
                    (
                        f"sum by (kind, outcome) (increase(larrey_site_tasks_total{_I}[1h]))",
                        "{{kind}} {{outcome}}",
                    ),
                ),
                lines(
                    "Duration, median",
                    "s",
                    "Of requests.",
                    (
                        quantile(
                            0.5, f"larrey_site_task_duration_seconds_bucket{_I}", "kind", "6h"
                        ),
                        "{{kind}}",
                    ),
                ),
                lines(
                    "Refused by this hospital",
                    "short",
                    "In a day, by rule.",
                    (
                        f"sum by (rule) (increase(larrey_site_policy_refusals_total{_I}[1d])) > 0",
                        "{{rule}}",
                    ),
                ),
                lines(
                    "Optimizer steps",
                    "ops",
                    "A second.",
                    (f"rate(larrey_site_train_steps_total{_I}[5m])", "steps"),
                ),
                lines(
                    "Data ready",
                    "bool_yes_no",
                    "When they were last asked for.",
                    (f"larrey_site_data_ready{_I}", "{{dataset}}"),
                ),
            ),
        ),
        Row(
            "Privacy, by this site's own ledger",
            (
                lines(
                    "Share of the limit",
                    "percentunit",
                    "By dataset.",
                    (f"dataset:larrey_site_privacy_epsilon_spent:ratio{_I}", "{{dataset}}"),
                ),
                lines(
                    "Epsilon spent and limit",
                    "none",
                    "By dataset.",
                    (f"larrey_site_privacy_epsilon_spent{_I}", "{{dataset}} spent"),
                    (f"larrey_site_privacy_epsilon_budget{_I}", "{{dataset}} limit"),
                ),
                lines(
                    "Noise multiplier",
                    "none",
                    "In use.",
                    (f"larrey_site_dp_noise_multiplier{_I}", "noise"),
                ),
            ),
        ),
        Row(
            "Network and machine",
            (
                lines(
                    "Bytes over the border",
                    "Bps",
                    "Sent and received.",
                    (f"rate(larrey_site_sent_bytes_total{_I}[5m])", "sent"),
                    (f"rate(larrey_site_received_bytes_total{_I}[5m])", "received"),
                ),
                lines(
                    "Failed calls",
                    "short",
                    "In an hour, by code.",
                    (
                        (
                            "sum by (reason)"
                            f" (increase(larrey_site_connection_errors_total{_I}[1h])) > 0"
                        ),
                        "{{reason}}",
                    ),
                ),
                lines(
                    "Clock",
                    "s",
                    "The coordinator's less this machine's.",
                    (f"larrey_site_clock_offset_seconds{_I}", "offset"),
                ),
                lines(
                    "Free space",
                    "percentunit",
                    "Of the state folder's volume.",
                    (
                        (
                            f"larrey_site_storage_free_bytes{_I}"
                            f" / larrey_site_storage_capacity_bytes{_I}"
                        ),
                        "{{volume}}",
                    ),
                ),
                lines(
                    "State folder takes no writes",
                    "short",
                    "1 while a code keeps it from being written.",
                    (f"larrey_site_storage_fault{_I}", "{{code}}"),
                ),
                lines(
                    "Barriers around the trainer",
                    "bool_yes_no",
                    "That the kernel enforces.",
                    (f"larrey_site_isolation{_I}", "{{barrier}}"),
                ),
            ),
        ),
    ),
)

HOST = Board(
    "larrey-host",
    "Larrey: host and GPU",
    "The machine under a node or a coordinator; needs node_exporter, and DCGM's exporter for GPUs.",
    (("instance", "label_values(process_start_time_seconds, instance)"),),
    (
        Row(
            "Programs",
            (
                lines(
                    "Memory",
                    "bytes",
                    "Resident, of the agent or coordinator; the trainer is a process of its own.",
                    (f"process_resident_memory_bytes{_I}", "{{job}}"),
                ),
                lines(
                    "Processor",
                    "short",
                    "Cores in use.",
                    (f"rate(process_cpu_seconds_total{_I}[5m])", "{{job}}"),
                ),
                lines("Open files", "short", "And sockets.", (f"process_open_fds{_I}", "{{job}}")),
            ),
        ),
        Row(
            "Host",
            (
                lines(
                    "Processor in use",
                    "percentunit",
                    "All cores.",
                    (
                        '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m]))',
                        "{{instance}}",
                    ),
                ),
                lines(
                    "Memory free",
                    "percentunit",
                    "Available to programs.",
                    ("node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", "{{instance}}"),
                ),
                lines(
                    "Disks free",
                    "percentunit",
                    "By mount point.",
                    (
                        (
                            'node_filesystem_avail_bytes{fstype!~"tmpfs|overlay"}'
                            ' / node_filesystem_size_bytes{fstype!~"tmpfs|overlay"}'
                        ),
                        "{{instance}} {{mountpoint}}",
                    ),
                ),
                lines(
                    "Disks busy",
                    "percentunit",
                    "Share of time.",
                    ("rate(node_disk_io_time_seconds_total[5m])", "{{instance}} {{device}}"),
                ),
                lines(
                    "Network",
                    "Bps",
                    "Sent and received.",
                    (
                        'sum(rate(node_network_transmit_bytes_total{device!="lo"}[5m]))',
                        "sent",
                    ),
                    (
                        'sum(rate(node_network_receive_bytes_total{device!="lo"}[5m]))',
                        "received",
                    ),
                ),
            ),
        ),
        Row(
            "GPU",
            (
                lines("In use", "percent", "Time with work.", ("DCGM_FI_DEV_GPU_UTIL", "{{gpu}}")),
                lines(
                    "Memory in use",
                    "percentunit",
                    "Of each GPU.",
                    (
                        "DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE)",
                        "{{gpu}}",
                    ),
                ),
                lines(
                    "Temperature", "celsius", "Of each GPU.", ("DCGM_FI_DEV_GPU_TEMP", "{{gpu}}")
                ),
                lines(
                    "Last XID error", "short", "0 for none.", ("DCGM_FI_DEV_XID_ERRORS", "{{gpu}}")
                ),
            ),
        ),
    ),
)
