"""Columns that identify a person, by their name or by what they hold.

Names are compared as words, English and French. Values are recognised by form: the French national
number (NIR, also the number of the national health identity, INS) with its control key, e-mail
addresses, telephone numbers, full dates of birth, names of people, free text in a category. A form
that chance can produce counts only where a good share of the column has it, so that pseudonyms
made of digits pass; an e-mail address counts wherever one is.
Sources: key and layout of the NIR, https://www.insee.fr/fr/metadonnees/definition/c1409;
telephone numbers, ITU-T E.164.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from larrey_client.data.cells import Cells
from larrey_client.data.violation import Violation
from larrey_protocol.contract import Contract

__all__ = ["identifies_by_name", "is_nir", "lint_names", "lint_values", "looks_like"]

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

_NIR = r"^[1-478]\d{2}(0[1-9]|1[0-2]|20|3\d|4[0-2]|[5-9]\d)(\d{2}|2[ABab])\d{8}$"
_NIR_WITHOUT_KEY = r"^[12]\d{2}(0[1-9]|1[0-2])(\d{2}|2[ABab])\d{6}$"
_EMAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z]{2,}"
_PHONE = r"^(\+\d{1,3}[ .-]?(\(0\))?\d([ .-]?\d){6,11}|0[1-9]([ .-]\d{2}){4})$"
_DATE = (
    r"^((19|20)\d{2}[-/.]?(0[1-9]|1[0-2])[-/.]?(0[1-9]|[12]\d|3[01])"
    r"|(0?[1-9]|[12]\d|3[01])[-/.](0?[1-9]|1[0-2])[-/.](19|20)\d{2}"
    r"|(0?[1-9]|1[0-2])/(0?[1-9]|[12]\d|3[01])/(19|20)\d{2})([ T]00:00(:00(\.0+)?)?)?$"
)
_PERSON = r"^\p{L}[\p{L}'’.-]+(,? +\p{L}[\p{L}'’.-]*){1,4}$"
_SEPARATORS = "[ .\u00a0-]"
_SOME, _MOST = 0.05, 0.5  # shares of the distinct values
_FREE_TEXT = 50  # distinct values of a category that could still be categories
_KEYED = 20_000  # values whose control key is computed; more would only repeat the answer
_CORSICA = {"2A": "19", "2B": "18"}


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


def looks_like(distinct: pa.Array, *, may_be_names: bool = False) -> str:
    """Return what kind of identifier distinct texts look like, "" for none.

    Args:
        distinct: texts without nulls.
        may_be_names: whether two words in a cell would be a person's name, not a category.
    """
    if len(distinct) == 0:
        return ""
    bare = pc.replace_substring_regex(distinct, _SEPARATORS, "")
    forms = {
        "e-mail addresses": _share(distinct, _EMAIL) > 0,
        "national health numbers (NIR, INS)": _are_nirs(bare),
        "telephone numbers": _share(distinct, _PHONE) > _SOME,
        "full dates, as of birth": _share(distinct, _DATE) > _MOST,
        "names of people": may_be_names and _share(distinct, _PERSON) > _MOST,
    }
    return next((form for form, is_seen in forms.items() if is_seen), "")


def is_nir(text: str) -> bool:
    """Return whether 15 characters are a French national number with its control key.

    The key is 97 minus the first 13 digits modulo 97; Corsica's 2A and 2B count as 19 and 18.
    """
    digits = text.upper()
    if not re.match(_NIR, digits):
        return False
    place = digits[5:7]
    number = int(digits[:5] + _CORSICA.get(place, place) + digits[7:13])
    return 97 - number % 97 == int(digits[13:])


def _are_nirs(bare: pa.Array) -> bool:
    """Return whether a share of the texts has the number's key, or most have its form."""
    candidates = bare.filter(pc.match_substring_regex(bare, _NIR))[:_KEYED].to_pylist()
    keyed = sum(map(is_nir, candidates))
    return keyed > _SOME * min(len(bare), _KEYED) or _share(bare, _NIR_WITHOUT_KEY) > _MOST


def _texts(cells: Cells, name: str) -> pa.ChunkedArray:
    """Return a column as text, whole numbers in all their digits."""
    column = cells.table[name]
    if pa.types.is_floating(column.type):
        whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 1e16))
        column = pc.cast(column.filter(pc.fill_null(whole, False)), pa.int64(), safe=False)
        return pc.cast(column, pa.string())
    return cells.texts(name)


def _share(texts: pa.Array, pattern: str) -> float:
    matches = pc.match_substring_regex(texts, pattern)
    return float(pc.mean(pc.cast(matches, pa.float64())).as_py())
