"""The connection to the hospital's database is as private as the connection string asks for."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest

from larrey_client.extract.taking import take
from larrey_protocol.certificates import Credential, issue_server, make_authority
from larrey_protocol.errors import DataError
from tests.client.extract.conftest import Ward
from tests.client.extract.database import PASSWORD, Database
from tests.client.extract.tls_front import Front, fronted

pytestmark = pytest.mark.system
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def hospital() -> Credential:
    return make_authority("the hospital's own authority", now=NOW)


def asking(front: Front, database: Database, folder: Path, root: Credential) -> str:
    """Return a connection string through the front that trusts one authority alone."""
    (folder / "root.crt").write_bytes(root.certificate)
    string = database.string.replace("host=127.0.0.1", "host=localhost")
    string = string.replace(f"port={database.port}", f"port={front.port}")
    return f"{string} sslmode=verify-full sslrootcert={folder / 'root.crt'}"


def test_the_database_s_own_certificate_is_enough(
    make_ward: Callable[..., Ward], database: Database, hospital: Credential, tmp_path: Path
) -> None:
    server = issue_server(hospital, ["localhost"], now=NOW)
    with fronted(database.port, server, tmp_path) as front:
        ward = make_ward(asking(front, database, tmp_path, hospital), "SELECT pid FROM stays")
        assert take(ward.settings, ward.dataset).rows == 30
        assert front.sessions == 1


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_foreign_authority_and_another_name_get_no_password(
    make_ward: Callable[..., Ward],
    database: Database,
    hospital: Credential,
    tmp_path: Path,
    wrong: str,
) -> None:
    issuer = make_authority("somebody else", now=NOW) if wrong == "authority" else hospital
    names = ["localhost"] if wrong == "authority" else ["other.hospital"]
    with fronted(database.port, issue_server(issuer, names, now=NOW), tmp_path) as front:
        ward = make_ward(asking(front, database, tmp_path, hospital))
        with pytest.raises(DataError) as refused:
            take(ward.settings, ward.dataset)
        assert refused.value.code == "source-untrusted"
        assert front.sessions == 0
    assert ward.snapshots == []


def test_a_server_without_tls_hears_nothing(
    make_ward: Callable[..., Ward], database: Database, hospital: Credential, tmp_path: Path
) -> None:
    with fronted(database.port, None, tmp_path) as front:
        ward = make_ward(asking(front, database, tmp_path, hospital))
        with pytest.raises(DataError) as refused:
            take(ward.settings, ward.dataset)
        assert refused.value.code == "source-refused"
        assert bytes(front.plain) == b""
    assert PASSWORD not in str(refused.value)
