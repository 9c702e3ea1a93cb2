"""What needs both sides on one machine: demo, rehearsals, reports."""
