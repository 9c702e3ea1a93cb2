"""What a lying site's receipts and exports do to those who read trails: nothing but a finding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from larrey_protocol.errors import IntegrityError
from larrey_protocol.signed import Receipt, sign
from larrey_server.trail import Told, Trail, reconcile, verify
from tests.server.test_audit import DIGEST, KEY, Both

HUGE = "9" * 5000


@pytest.fixture
def both(tmp_path: Path) -> Both:
    return Both(tmp_path)


def lying(both: Both, **changes: Any) -> Trail:
    """Return the trail with one more receipt, in which the site lies."""
    receipt = Receipt.model_validate_json(both.receipts[0].document)
    lie = sign(receipt.model_copy(update={"round": 3, **changes}), KEY)
    more = Told(DIGEST, 3, "alpha", "contributed", (lie,))
    return replace(both.trail, contributions=(*both.trail.contributions, more))


@pytest.mark.parametrize("number", [HUGE, "x", "-1", "", "٣"])
def test_a_head_that_is_none_stops_no_check(both: Both, number: str) -> None:
    trail = lying(both, peer_head=f"{number}:sha256:0", audit_head=f"{number}:sha256:0")
    assert verify(trail)["is_intact"]
    found = reconcile(trail, both.export())
    assert {(one.kind, one.what, one.index) for one in found} == {("extra", "receipt", 0)}


def test_who_signed_for_a_record_that_is_not_there_is_named(both: Both) -> None:
    with pytest.raises(IntegrityError, match=r"record 7 .* signed for by alpha"):
        verify(lying(both, peer_head="7:sha256:" + "0" * 64))


def test_an_export_with_numbers_that_are_none_is_broken(both: Both) -> None:
    export = both.export()
    export["records"][0]["at"] = float("nan")
    with pytest.raises(IntegrityError, match="audit-broken"):
        reconcile(both.trail, export)
