"""National numbers of persons, recognised by their check digits. Pure.

Each rule says how a number is written, how its check digits follow from the rest, and which share
of a column must meet both: what one number in ten meets by chance proves nothing in a few cells.
Sources. France, NIR (and INS): https://www.insee.fr/fr/metadonnees/definition/c1409. England, NHS:
https://www.datadictionary.nhs.uk/attributes/nhs_number.html. Netherlands, BSN, eleven test:
https://nl.wikipedia.org/wiki/Burgerservicenummer. Belgium, NISS/INSZ: royal decree of 3 April 1984.
Germany, KVNR: § 290 SGB V, https://de.wikipedia.org/wiki/Krankenversichertennummer. Spain, NIF/NIE:
Ministerio del Interior, cálculo del dígito de control. Italy, codice fiscale: D.M. 23 dicembre
1976. Switzerland, AHV/AVS: EAN-13 with the prefix 756. Poland, PESEL:
https://www.gov.pl/web/gov/czym-jest-numer-pesel. Sweden, personnummer: Skatteverket SKV 704.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["NATIONAL", "NationalNumber", "is_nir"]

_FEW, _SOME, _MOST = 1, 0.05, 0.5
_ENOUGH = 8  # of a check that one in ten meets by chance: over half of these is under 1 in 2000
_CORSICA = {"2A": "19", "2B": "18"}
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_MONTH, _DAY = r"(0[1-9]|1[0-2])", r"(0[1-9]|[12]\d|3[01])"


@dataclass(frozen=True, slots=True)
class NationalNumber:
    """One country's number.

    Attributes:
        what: for people.
        form: regular expression of the number, upper case, without separators.
        is_valid: whether the check digits of a text of that form follow from the rest.
        share: of a column's distinct values, above which it holds such numbers.
        least: distinct values that a column must have for the share to prove anything.
    """

    what: str
    form: str
    is_valid: Callable[[str], bool]
    share: float
    least: int

    def matches(self, text: str) -> bool:
        """Return whether a text, upper case and without separators, is such a number."""
        return re.fullmatch(self.form, text) is not None and self.is_valid(text)


def is_nir(text: str) -> bool:
    """Return whether 15 characters are a French national number with its control key.

    The key is 97 minus the first 13 digits modulo 97; Corsica's 2A and 2B count as 19 and 18.
    """
    return _NIR.matches(text.upper())


def _nir_key(text: str) -> bool:
    place = text[5:7]
    number = int(text[:5] + _CORSICA.get(place, place) + text[7:13])
    return 97 - number % 97 == int(text[13:])


def _nhs(text: str) -> bool:
    return (11 - _weighted(text[:9], range(10, 1, -1)) % 11) % 11 == int(text[9])


def _bsn(text: str) -> bool:
    digits = text.zfill(9)
    return _weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0 and int(digits) > 0


def _niss(text: str) -> bool:
    numbers = (int(text[:9]), int("2" + text[:9]))  # the second for who was born since 2000
    return int(text[9:]) in {97 - number % 97 for number in numbers}


def _kvnr(text: str) -> bool:
    digits = f"{ord(text[0]) - 64:02}{text[1:9]}"
    return _luhn_sum(digits, first=1) % 10 == int(text[9])


def _dni(text: str) -> bool:
    number = int(text[:-1].translate(str.maketrans("XYZ", "012")))
    return _DNI_LETTERS[number % 23] == text[-1]


def _ean(text: str) -> bool:
    return _weighted(text, (1, 3) * 6 + (1,)) % 10 == 0


def _pesel(text: str) -> bool:
    return _weighted(text, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0


def _personnummer(text: str) -> bool:
    return _luhn_sum(text[-10:], first=2) % 10 == 0


def _weighted(digits: str, weights: Sequence[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True))


def _luhn_sum(digits: str, *, first: int) -> int:
    """Return the sum of the digits of each product with 1 and 2 in turn, beginning at ``first``."""
    products = (int(d) * (first if i % 2 == 0 else 3 - first) for i, d in enumerate(digits))
    return sum(product // 10 + product % 10 for product in products)


_NIR = NationalNumber(
    "national health numbers (NIR, INS)",
    r"[1-478]\d{2}(0[1-9]|1[0-2]|20|3\d|4[0-2]|[5-9]\d)(\d{2}|2[AB])\d{8}",
    _nir_key, _SOME, _FEW,
)  # fmt: skip

NATIONAL = (
    _NIR,
    NationalNumber(
        "Italian fiscal codes",
        r"[A-Z]{6}\d{2}[ABCDEHLMPRST]([04][1-9]|[1256]\d|[37][01])[A-Z]\d{3}[A-Z]",
        lambda _: True, _SOME, _FEW,
    ),
    NationalNumber(
        "Belgian national numbers (NISS, INSZ)",
        r"\d{2}([024]\d|[135][0-2])(0\d|[12]\d|3[01])\d{5}",
        _niss, _MOST, _ENOUGH,
    ),
    NationalNumber("Swiss insurance numbers (AHV, AVS)", r"756\d{10}", _ean, _MOST, _ENOUGH),
    NationalNumber("NHS numbers", r"\d{10}", _nhs, _MOST, _ENOUGH),
    NationalNumber("Dutch citizen service numbers (BSN)", r"\d{8,9}", _bsn, _MOST, _ENOUGH),
    NationalNumber("German insurance numbers (KVNR)", r"[A-Z]\d{9}", _kvnr, _MOST, _ENOUGH),
    NationalNumber("Spanish identity numbers", r"(\d{8}|[XYZ]\d{7})[A-Z]", _dni, _MOST, _ENOUGH),
    NationalNumber(
        "Polish identity numbers (PESEL)",
        rf"\d{{2}}([02468][1-9]|[13579][0-2]){_DAY}\d{{5}}", _pesel, _MOST, _ENOUGH,
    ),
    NationalNumber(
        "Swedish personal numbers",
        rf"(19|20)?\d{{2}}{_MONTH}{_DAY}\d{{4}}", _personnummer, _MOST, _ENOUGH,
    ),
)  # fmt: skip
