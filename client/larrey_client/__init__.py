"""The hospital node: agent, gate, cohort, trainer."""
