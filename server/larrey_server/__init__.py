"""The coordinator: hosts Flower's Fleet service, rounds, journal, control services."""
