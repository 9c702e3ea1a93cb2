"""What identifies persons is recognised by its form in any column, and what is clinical is not."""

from __future__ import annotations

import string
from itertools import islice

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from larrey_client.data.forms import looks_like
from larrey_client.data.numbers import NATIONAL, NationalNumber

# Worked examples of the issuing bodies and textbooks; none of a real person.
EXAMPLES = {
    "national health numbers (NIR, INS)": "255081416802538",
    "Italian fiscal codes": "RSSMRA85T10A562S",
    "Belgian national numbers (NISS, INSZ)": "85073003328",
    "Swiss insurance numbers (AHV, AVS)": "7569217076985",
    "NHS numbers": "9434765919",
    "Dutch citizen service numbers (BSN)": "111222333",
    "German insurance numbers (KVNR)": "A123456780",
    "Spanish identity numbers": "12345678Z",
    "Polish identity numbers (PESEL)": "44051401359",
    "Swedish personal numbers": "8112189876",
}
ALSO = {
    "Spanish identity numbers": ["X1234567L"],
    "Swedish personal numbers": ["198112189876"],
    "Dutch citizen service numbers (BSN)": ["11122233" + "3"],
}
NUMBERED = [number for number in NATIONAL if number.what != "Italian fiscal codes"]


def _valid(number: NationalNumber, count: int) -> list[str]:
    """Return distinct numbers with right check digits: an example, its last digits varied."""
    example = EXAMPLES[number.what]
    ends = 5 if example[-1].isdigit() else 6  # of which a last letter stays
    letter = "" if example[-1].isdigit() else example[-1]
    texts = (example[:-ends] + f"{n:05}" + letter for n in range(100_000))
    return list(islice(filter(number.matches, texts), count))


@pytest.mark.parametrize("number", NATIONAL, ids=lambda number: number.what)
def test_the_worked_example_of_every_number_is_valid(number: NationalNumber) -> None:
    assert all(number.matches(text) for text in (EXAMPLES[number.what], *ALSO.get(number.what, [])))


@pytest.mark.parametrize("number", NUMBERED, ids=lambda number: number.what)
def test_one_wrong_digit_anywhere_is_no_number(number: NationalNumber) -> None:
    example = EXAMPLES[number.what]
    places = [i for i, character in enumerate(example) if character.isdigit()]
    for i in places:
        wrong = [example[:i] + d + example[i + 1 :] for d in string.digits if d != example[i]]
        assert not any(map(number.matches, wrong)), i


@pytest.mark.parametrize("number", NUMBERED, ids=lambda number: number.what)
def test_a_column_of_them_is_recognised_and_one_among_many_is_not(number: NationalNumber) -> None:
    found = _valid(number, 40)
    assert looks_like(pa.array(found)) == number.what
    spaced = [f"{text[:3]} {text[3:6]}.{text[6:].lower()}" for text in found]
    assert looks_like(pa.array(spaced)) == number.what
    mixed = [found[0], *(f"p{i}" for i in range(40))]
    assert looks_like(pa.array(mixed)) == ""


@pytest.mark.parametrize(
    "values",
    [
        ["12 rue de la Paix", "3 bis, avenue Foch", "7, bd Voltaire"],
        ["4 place du Marché", "18 route de Lyon", "9, cours de l'Intendance"],
        ["Résidence Les Lilas, 12 rue Pasteur", "chez Mme Petit, 3 impasse Verte"],
        ["221B Baker Street", "10 Old Mill Lane, Leeds", "5 St. Mary's Road"],
        ["Hauptstraße 12", "Bahnhofstrasse 4a", "Bergstr. 7", "Goetheallee 3"],
        ["Kerkstraat 12", "Stationsstraat 3 b", "Storgatan 5", "Keizersgracht 100"],
        ["Via Roma 12", "Piazza Garibaldi, 3", "Viale dei Mille 45"],
        ["Calle Mayor, 12", "Avda. de la Constitución 5", "C/ Alcalá 33", "Rua Augusta 8"],
        ["ul. Długa 3", "ul. Nowy Świat 12"],
        ["75011 Paris", "F-69003 Lyon", "13100 Aix en Provence", "10115 Berlin"],
        ["75231 PARIS CEDEX 05", "93200 Saint-Denis"],
        ["SW1A 1AA", "M1 1AE", "EC1A 1BB"],
    ],
)
def test_postal_addresses_are_recognised(values: list[str]) -> None:
    assert looks_like(pa.array(values)) == "postal addresses"


def test_one_address_in_ten_cells_is_enough_for_a_street() -> None:
    assert looks_like(pa.array(["12 rue de la Paix", *(f"ward {i}" for i in range(9))]))
    assert not looks_like(pa.array(["12 rue de la Paix", *(f"ward {i}" for i in range(30))]))


@pytest.mark.parametrize(
    "values",
    [
        ["M. Dupont", "Mme Martin", "Mlle Petit"],
        ["Dr Schmidt", "Prof. Weber", "Herr Müller"],
        ["Mrs Smith", "Ms. Brown", "seen by the nurse"],
        [f"{a}{b}{c}OT {n}" for a in "DMLB" for b in "AEO" for c in "RNT" for n in ("Marie",)],
        [f"LE {a}{b}OUX, Jean-{n}" for a in "BMRDFGP" for b in "RUL" for n in ("Marc",)],
    ],
)
def test_names_of_people_are_recognised_outside_the_unit_column_too(values: list[str]) -> None:
    assert looks_like(pa.array(values)) == "names of people"


@pytest.mark.parametrize(
    "values",
    [
        ["3 mars 1950", "1er février 1961", "12 AOÛT 1944"],
        ["March 3, 1950", "November 30th 1961", "Jan 1 1944"],
        ["03-MAR-1950", "30-Nov-61", "01-Jan-1944"],
        ["3. März 1950", "30. November 1961", "1. Dezember 1944"],
        ["3 de marzo de 1950", "30 de noviembre de 1961"],
        ["3 marzo 1950", "30 dicembre 1961", "2 gennaio 1944"],
        ["03/02/50", "30/11/61"],
        ["3 2 1950", "30 11 1961"],
        ["1950-3-2", "1961/11/30"],
        ["1950-03-02T00:00:00Z", "1961-11-30 00:00:00+00:00"],
    ],
)
def test_dates_of_birth_are_recognised_in_other_spellings(values: list[str]) -> None:
    assert looks_like(pa.array(values)) == "full dates, as of birth"


@pytest.mark.parametrize(
    "values",
    [
        ["0612345678", "0712345678", "0698765432"],
        ["020 7946 0958"],
        ["030/1234567", "(01) 234 5678"],
    ],
)
def test_telephone_numbers_are_recognised_as_people_write_them(values: list[str]) -> None:
    assert looks_like(pa.array(values)) == "telephone numbers"


@pytest.mark.parametrize(
    "values",
    [
        ["I21.0", "E11.9", "Z38", "C50.9", "J18.1", "M16", "S72.0", "F32.1", "G40.9"],  # ICD-10
        ["I21.0 Infarctus transmural", "E11.9 Diabète de type 2", "J18 Pneumopathie"],
        ["A10BA02", "N02BE01", "C09AA05", "J01CA04", "B01AC06", "L01XE01", "H02AB06"],  # ATC
        ["A10BA02 Metformin", "N02BE01 Paracetamol", "C09AA05 Ramipril"],
        ["2345-7", "718-7", "2160-0", "2951-2", "8480-6", "4548-4", "1742-6", "777-3"],  # LOINC
        ["73211009", "38341003", "22298006", "44054006", "195967001", "13645005", "84114007"],
        ["99213 Office visit", "71045 Chest view", "93000 Electrocardiogram report"],
        ["mg/dL", "mmol/L", "10*9/L", "mm[Hg]", "ug/L", "kg/m2", "/min", "[IU]/L"],
        ["500 MG", "1000 IU", "250 mg", "5 ML", "1 g", "0.5 mg"],
        ["typical angina", "atypical angina", "non-anginal pain", "asymptomatic"],
        ["MRI Brain", "CT Thorax", "ECG Normal", "HIV Positive", "STEMI Anterior", "ICU Admission"],
        ["MR Angiography", "MS Relapsing", "PR Depression", "DR Thorax", "M", "F"],
        [f"{kind} {part}" for kind in ("MRI", "IRM", "CTA", "PET", "DXA")
         for part in ("Brain", "Knee", "Thorax", "Spine", "Hip", "Foot")],
        ["via oral 2", "via aerea 1", "Via orale 3", "voie IV 2", "route 3", "2 route orale"],
        ["Menstr. 28", "Atemweg 1", "Harnweg 2", "Bettplatz 3", "Brigade 3"],
        ["2 cours", "3 place", "1 drive", "4 weeks", "10 minutes"],
        ["2024-03-01T10:22:31Z", "2024-03-01T23:01:00+01:00", "2023-12-31 04:05:06.5"],
        ["120/80", "140/90", "8.5", "1.2.3", "2024", "2024-03", "03/2024"],
        ["18-25", "26-40", "41-65", "65+", "<18"],
        ["001-0001", "012-003456", "099-012345"],  # identifiers of trial subjects
        ["Ward 3", "Bloc A", "Unité 12", "Site 75", "Salle 4"],
        ["A1 B2", "0+", "AB-", "G1P0", "T2N0M0", "ASA 2", "NYHA III"],
        ["", "  ", "none"],
    ],
)  # fmt: skip
def test_codes_units_categories_and_times_of_events_pass(values: list[str]) -> None:
    assert looks_like(pa.array(values)) == ""


@settings(deadline=None, max_examples=30)
@given(st.integers(8, 14), st.integers(0, 2**32 - 1))
def test_random_numbers_as_pseudonyms_pass(digits: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(3 * 10 ** (digits - 1), 10**digits, 200)
    assert looks_like(pa.array([str(number) for number in drawn])) == ""


def test_a_long_column_is_judged_by_cells_from_its_beginning_to_its_end() -> None:
    half = [f"p{i:07}" for i in range(30_000)]
    streets = [f"{i % 9000} rue Pasteur {i}" for i in range(30_000)]
    for values in (half + streets, streets + half):
        assert looks_like(pa.array(values)) == "postal addresses"
    assert looks_like(pa.array([*half, "somebody@example.org"])) == "e-mail addresses"
