"""The source of a listed standard app; only its digest is looked at, nothing imports it."""

app = None
