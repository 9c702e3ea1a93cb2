"""Columns that identify a person, by their name or by what they hold.

Names are compared as words, English and French. Values are recognised by form, of whatever name
the column is: `larrey_client.data.forms` says which forms.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from larrey_client.data.cells import Cells
from larrey_client.data.forms import looks_like
from larrey_client.data.violation import Violation
from larrey_protocol.contract import Contract

__all__ = ["identifies_by_name", "lint_names", "lint_values"]

# Names that identify whatever stands around them, as sets of words that must all be there.
_TELLING = [
    set(words.split(" "))
    for words in (
        *("nir", "ipp", "ssn", "nss", "mrn", "dob", "email", "courriel", "birthdate", "birthday"),
        *("surname", "firstname", "lastname", "prenom", "telephone", "phone", "address", "adresse"),
        *("passport", "passeport", "zipcode", "postcode", "iban", "e mail", "birth date"),
        *("date naissance", "nom naissance", "nom famille", "nom patient", "nom usuel"),
        *("first name", "last name", "family name", "maiden name", "full name", "given name"),
        *("name patient", "name subject", "insurance number", "nhs number", "social security"),
        *("securite sociale", "numero secu", "medical record number", "carte identite"),
        *("identity card", "matricule ins", "ins number", "numero ins", "code postal"),
        *("postal code", "zip code"),
    )
]
# Names that identify only if they are the whole name: "ins" is also part of an insulin's.
_WHOLE = frozenset(
    {"ins", "nia", "iep", "ndp", "name", "nom", "mail", "tel", "mobile", "portable", "fax"}
    | {"street", "rue", "zip", "ddn"}
)
_WORD = re.compile(r"[a-z]+|[0-9]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

_FREE_TEXT = 50  # distinct values of a category that could still be categories


def lint_names(contract: Contract) -> Iterator[Violation]:
    """Give the columns of a contract whose name identifies persons; needs no data."""
    for name in contract.column_names():
        if identifies_by_name(name):
            what = "by its name it identifies persons; refuse the study or ask for another contract"
            yield Violation("identifier-column", name, what)


def lint_values(contract: Contract, cells: Cells) -> Iterator[Violation]:
    """Give the columns whose values look as if they identified persons."""
    categories = {column.name for column in contract.columns if column.kind == "category"}
    files = {contract.image.path, contract.image.digest} if contract.image else set()
    for name in contract.column_names():
        if not cells.has(name) or name in files:
            continue
        distinct = pc.drop_null(pc.unique(_texts(cells, name)))
        seen = looks_like(distinct, may_be_names=name == contract.unit.column)
        if not seen and name in categories and len(distinct) > max(_FREE_TEXT, cells.rows // 2):
            seen = "free text, different in almost every row"
        if seen:
            yield Violation("identifier-value", name, f"its values look like {seen}")


def identifies_by_name(name: str) -> bool:
    """Return whether a column called so identifies persons: "nir", "date_naissance", "eMail"."""
    humps = _HUMP.sub(" ", name)
    plain = unicodedata.normalize("NFKD", humps).encode("ascii", "ignore").decode().lower()
    words = _WORD.findall(plain)
    return "".join(words) in _WHOLE or any(telling <= set(words) for telling in _TELLING)


def _texts(cells: Cells, name: str) -> pa.ChunkedArray:
    """Return a column as text, whole numbers in all their digits."""
    column = cells.table[name]
    if pa.types.is_floating(column.type):
        whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 1e16))
        column = pc.cast(column.filter(pc.fill_null(whole, False)), pa.int64(), safe=False)
        return pc.cast(column, pa.string())
    return cells.texts(name)
