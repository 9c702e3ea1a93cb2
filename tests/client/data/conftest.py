"""The small study of the training tests, for the tests of its data."""

from __future__ import annotations

from tests.client.training.conftest import contract, make_study, private, table

__all__ = ["contract", "make_study", "private", "table"]
