"""One running federation for all system tests: starting four nodes costs seconds of CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.hospitals import Hospitals, app_path, build


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    hospitals = build(tmp_path_factory.mktemp("system"))
    with pytest.MonkeyPatch.context() as environment, hospitals.federation:
        for name, value in app_path().items():
            environment.setenv(name, value)
        hospitals.federation.start_coordinator()
        hospitals.federation.start_sites()
        yield hospitals


@pytest.fixture
def hospitals(running: Hospitals) -> Iterator[Hospitals]:
    """Give the running federation, and start again what the test killed."""
    yield running
    running.mend()
