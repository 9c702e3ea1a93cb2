"""The boards of studies, their sites and their privacy."""

from panels import DAY_S, Board, Row, lines, quantile, stat, table

__all__ = ["FLEET", "PRIVACY", "PROGRESS"]

_STUDY = ("study", "label_values(larrey_run_active, study)")
_SITE = ("site", "label_values(larrey_coordinator_site_last_seen_timestamp_seconds, site)")
_S = '{study=~"$study"}'
_SS = '{study=~"$study",site=~"$site"}'
_X = '{site=~"$site"}'

PROGRESS = Board(
    "larrey-study",
    "Larrey: study progress",
    "How far a study is, and what holds it up.",
    (_STUDY,),
    (
        Row(
            "Now",
            (
                stat("Round", "short", f"larrey_round_number{_S}", "0 if none.", None, "{{study}}"),
                stat(
                    "Of rounds",
                    "short",
                    f"larrey_rounds_planned{_S}",
                    "That the study is to do.",
                    None,
                    "{{study}}",
                ),
                stat(
                    "Done",
                    "percentunit",
                    f"study:larrey_rounds_done:ratio{_S}",
                    "Share of the rounds.",
                    None,
                    "{{study}}",
                ),
                stat(
                    "Since a round was applied",
                    "s",
                    f"time() - larrey_round_last_completed_timestamp_seconds{_S}",
                    "Or since the launch.",
                    None,
                    "{{study}}",
                ),
                stat(
                    "Updates that wait",
                    "short",
                    f"larrey_round_replies_waiting{_S}",
                    "Received in the open round, not aggregated yet.",
                    None,
                    "{{study}}",
                ),
                stat(
                    "Sites left out",
                    "short",
                    f"larrey_sites_excluded{_S}",
                    "By persons.",
                    1,
                    "{{study}}",
                ),
            ),
        ),
        Row(
            "Rounds",
            (
                lines(
                    "Open round against its deadline",
                    "s",
                    "Seconds since it was opened.",
                    (
                        (
                            f"(time() - larrey_round_start_timestamp_seconds{_S})"
                            f" and larrey_round_start_timestamp_seconds{_S} > 0"
                        ),
                        "{{study}} open",
                    ),
                    (f"larrey_round_deadline_seconds{_S}", "{{study}} deadline"),
                ),
                lines(
                    "Attempts that ended",
                    "short",
                    "In six hours.",
                    (
                        f"sum by (study, outcome) (increase(larrey_rounds_total{_S}[6h]))",
                        "{{study}} {{outcome}}",
                    ),
                ),
                lines(
                    "Duration of rounds, 95 of 100",
                    "s",
                    "Over a day.",
                    (f"study:larrey_round_duration_seconds:p95_1d{_S}", "{{study}}"),
                ),
                lines(
                    "What holds it",
                    "short",
                    "Orders, waiting for sites, the coordinator's own trouble.",
                    (f"larrey_run_stopped{_S}", "{{study}} {{stop}}"),
                    (f"larrey_run_gathering{_S}", "{{study}} gathering"),
                    (f"larrey_run_stalled{_S}", "{{study}} stalled"),
                ),
                lines(
                    "Sites",
                    "short",
                    "There, needed and invited.",
                    (f"larrey_sites_available{_S}", "{{study}} there"),
                    (f"larrey_quorum_required{_S}", "{{study}} quorum"),
                    (f"larrey_sites_enrolled{_S}", "{{study}} invited"),
                ),
                lines(
                    "Models made again",
                    "short",
                    "After they were lost or altered on disk, in a day.",
                    (f"increase(larrey_checkpoints_rebuilt_total{_S}[1d])", "{{study}}"),
                ),
            ),
        ),
        Row(
            "Updates",
            (
                lines(
                    "Received",
                    "short",
                    "In an hour, by site.",
                    (f"increase(larrey_updates_received_total{_S}[1h])", "{{site}}"),
                ),
                lines(
                    "Late or not counted",
                    "short",
                    "In an hour, by site.",
                    (f"increase(larrey_updates_late_total{_S}[1h])", "{{site}} late"),
                    (
                        f"sum by (site, reason) (increase(larrey_updates_rejected_total{_S}[1h]))",
                        "{{site}} {{reason}}",
                    ),
                ),
                lines(
                    "Size, median",
                    "bytes",
                    "As they came.",
                    (
                        quantile(0.5, f"larrey_update_size_bytes_bucket{_S}", "study", "1h"),
                        "{{study}}",
                    ),
                ),
            ),
        ),
    ),
)

FLEET = Board(
    "larrey-sites",
    "Larrey: site fleet",
    "Which hospitals are there, and how fast they are.",
    (_STUDY, _SITE),
    (
        Row(
            "Sites",
            (
                lines(
                    "Silence",
                    "s",
                    "Since the last authenticated contact, against the limit.",
                    (
                        (
                            "max by (site) (time()"
                            f" - larrey_coordinator_site_last_seen_timestamp_seconds{_SS})"
                        ),
                        "{{site}}",
                    ),
                    (f"min(larrey_coordinator_site_silence_limit_seconds{_SS})", "limit"),
                ),
                table(
                    "Hours until a training window opens",
                    "h",
                    "Only sites outside one.",
                    (
                        (
                            f"(larrey_coordinator_site_window_opens_timestamp_seconds{_X} > 0)"
                            " / 3600 - time() / 3600"
                        ),
                        "{{site}}",
                    ),
                ),
                table(
                    "Days of the certificate",
                    "d",
                    "That each site last called with.",
                    (
                        (
                            f"(larrey_coordinator_site_certificate_expiry_timestamp_seconds{_X}"
                            f" - time()) / {DAY_S}"
                        ),
                        "{{site}}",
                    ),
                ),
                lines(
                    "From request to answer, median",
                    "s",
                    "Transfers included.",
                    (
                        quantile(
                            0.5,
                            f"larrey_coordinator_site_task_duration_seconds_bucket{_SS}",
                            "site, kind",
                            "6h",
                        ),
                        "{{site}} {{kind}}",
                    ),
                ),
                lines(
                    "Bytes received",
                    "Bps",
                    "By site.",
                    (f"sum by (site) (rate(larrey_received_bytes_total{_X}[5m]))", "{{site}}"),
                ),
                lines(
                    "Late answers",
                    "short",
                    "In a day.",
                    (f"sum by (site) (increase(larrey_updates_late_total{_SS}[1d]))", "{{site}}"),
                ),
            ),
        ),
    ),
)

PRIVACY = Board(
    "larrey-privacy",
    "Larrey: privacy budgets",
    "Epsilon by study and site, as receipts say. Unit patient, neighbours by adding or removing"
    " one, at the study's delta, by PLD.",
    (_STUDY, _SITE),
    (
        Row(
            "By study and site",
            (
                lines(
                    "Share of the study's epsilon",
                    "percentunit",
                    "1 is all that the study declares.",
                    (f"study_site:larrey_privacy_epsilon_spent:ratio{_SS}", "{{study}} {{site}}"),
                ),
                lines(
                    "Epsilon spent",
                    "none",
                    "As the last receipt says.",
                    (f"larrey_privacy_epsilon_spent{_SS}", "{{study}} {{site}}"),
                ),
                table(
                    "Epsilon declared",
                    "none",
                    "By the study, for each site.",
                    (f"larrey_privacy_epsilon_budget{_SS}", ""),
                ),
            ),
        ),
    ),
)
