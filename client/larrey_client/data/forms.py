"""What texts look like that identify persons: numbers, addresses, names, dates of birth. Pure.

A form that chance or a clinical word can produce counts only where a good share of a column's
distinct values has it, so that codes (ICD-10, ATC, LOINC), units, categories, times of events and
pseudonyms pass; an e-mail address counts wherever one is. A person's name written like any two
words is recognised only where a patient's identifier should be.
Sources: telephone numbers, ITU-T E.164 and the national ways of writing them; postal addresses,
Universal Postal Union, S42 and the postal addressing systems of its members; national numbers,
`larrey_client.data.numbers`.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from larrey_client.data.numbers import NATIONAL, NationalNumber

__all__ = ["looks_like"]

_SOME, _MOST, _NEARLY_ALL = 0.05, 0.5, 0.8  # shares of the distinct values
_SAMPLE = 20_000  # distinct values that are looked at; more would only repeat the answer
_MANY = 20  # distinct values below which capitals and a word may well be a list of examinations

_EMAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z]{2,}"
_NIR_WITHOUT_KEY = r"^[12]\d{2}(0[1-9]|1[0-2])(\d{2}|2[ABab])\d{6}$"
_PHONE = (
    r"^(\+\d{1,3}[ .-]?(\(0\))?\d([ .-]?\d){6,11}|0[1-9]([ .-]\d{2}){4}"
    r"|\(?0\d{1,4}\)?[ /]\d{3,4}[ -]?\d{3,5})$"
)
_BARE_PHONE = r"^0[67]\d{8}$"  # a French mobile without separators; other ids have ten digits too

_DAY, _MONTH, _YEAR = r"(0?[1-9]|[12]\d|3[01])", r"(0?[1-9]|1[0-2])", r"(18|19|20)\d{2}"
_MIDNIGHT = r"([ T]00:00(:00(\.0+)?)?(Z|[+-]00:?00)?)?$"
_MONTHS = (  # French, English, German, Spanish, Italian; as far as they are spelled alike, once
    r"(jan(v(ier)?|uary|uar)?|f[ée]v(r(ier)?)?|feb(r(uary|uar|ero))?|mar(s|ch|zo)?|m[äa]r?z"
    r"|avr(il)?|apr(il|ile)?|abr(il)?|mai|may(o)?|mag(gio)?|jui?n(e|i|io)?|giu(gno)?|juil(let)?"
    r"|jul(y|i|io)?|lug(lio)?|ao[uû]t|aug(ust)?|ago(sto)?|sept?(embre|ember|iembre)?|set(tembre)?"
    r"|o[ckt]t(obre|ober|ubre)?|ott(obre)?|nov(embre|ember|iembre)?|d[ée][cz](embre|ember)?"
    r"|dic(iembre|embre)?|ene(ro)?|gen(naio)?|febbraio|junio|julio)\.?"
)
_DATE = (
    rf"^({_YEAR}[-/.]?(0[1-9]|1[0-2])[-/.]?(0[1-9]|[12]\d|3[01])"
    rf"|{_YEAR}[-/.]{_MONTH}[-/.]{_DAY}"
    rf"|{_DAY}[-/. ]{_MONTH}[-/. ]{_YEAR}|{_MONTH}/{_DAY}/{_YEAR}"
    rf"|{_DAY}[/.](0[1-9]|1[0-2])[/.]\d{{2}}){_MIDNIGHT}"
)
_SPELLED_DATE = (
    rf"(?i)^({_DAY}(\.|er|st|nd|rd|th)?([ -]|( de | of ))"
    rf"{_MONTHS}(,?[ -]| del? )(\d{{2}}|{_YEAR})"
    rf"|{_MONTHS} {_DAY}(st|nd|rd|th)?,? {_YEAR}|{_YEAR}[ -]{_MONTHS}[ -]{_DAY})$"
)

_NUMBER = r"(^|[\s,;])\d{1,4}(\s?(bis|ter|quater|[a-d]))?,?\s+"
_ARTICLE = r"(de|du|des|la|le|les|l['’]|d['’])"
_STREETS = (
    # 12 bis, rue de la Paix; 3 place du Marché: words with another meaning need an article
    rf"(?i){_NUMBER}((rue|avenue|av\.|boulevard|bd|blvd|chemin|impasse|all[ée]e)\s+\pL"
    rf"|(place|cours|route|quai|square|passage|faubourg)\s+{_ARTICLE})"
    # 12 High Street
    r"|^\d{1,4}[a-d]?,?\s+([\pL'’.-]+\s+){1,4}"
    r"(street|road|lane|avenue|crescent|terrace|st\.|rd\.)(\s|,|$)"
    # Hauptstraße 12, Bergstr. 4a, Kerkstraat 12, Storgatan 3
    r"|(stra(ß|ss)e|straat|gatan|vägen|\pL{3}(gasse|allee|laan|gracht)|\pL{4}str\.)"
    r"\s+\d{1,4}\s?[a-z]?(\s|,|$)"
)
_NAMED_STREETS = (  # Via Roma, 12; Calle de Alcalá 5; ul. Długa 3: a name, "via oral 2" is none
    r"^(?i:via|viale|piazza|corso|vicolo|calle|avenida|avda\.?|paseo|plaza|rua|travessa|carrer"
    r"|ul\.|ulica|c/)\s*(\pL{1,3}\s+)*\p{Lu}[\pL'’.]+(\s+[\pL'’.]+){0,4},?"
    r"\s+(n[.º°]?\s?)?\d{1,4}"
)
_TOWN = (  # 75011 Paris, F-69003 Lyon, 10115 Berlin; SW1A 1AA
    r"^([A-Z]{1,2}-)?\d{5}\s+\p{Lu}[\pL'’-]+"
    r"(\s(\p{Lu}[\pL'’-]*|\d{1,2}|sur|sous|de|la|le|les|lès|en|am|an|der|di|del|cedex))*$"
    r"|^[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}$"
)

_PERSON = r"^\p{L}[\p{L}'’.-]+(,? +\p{L}[\p{L}'’.-]*){1,4}$"
_TITLED = (  # "MR", "MS", "DR", "PR" in capitals are also magnetic resonance, sclerosis, …
    r"^(M\.|Mme|MME|Mlle|MLLE|Mr\.?|MR\.|Mrs\.?|MRS|Ms\.?|Dr\.?|DR\.|Pr\.?|Prof\.?|Herr|Frau"
    r"|Sr\.|Sra\.?|Sig\.?|Dhr\.?|Mevr\.?|Monsieur|Madame|Mademoiselle)\s+\p{Lu}[\pL'’-]+"
)
_CAPITALS = (
    r"(?P<family>(?:(?:DE|DI|DU|LE|LA|VAN|VON) )?\p{Lu}[\p{Lu}'’]{2,}(?:[ -]\p{Lu}[\p{Lu}'’]+)*)"
)
_FAMILY_FIRST = rf"^{_CAPITALS},? \p{{Lu}}\p{{Ll}}+([ -]\p{{Lu}}\p{{Ll}}+)*$"  # DUPONT Marie


def looks_like(distinct: pa.Array, *, may_be_names: bool = False) -> str:
    """Return what kind of identifier distinct texts look like, "" for none.

    Args:
        distinct: texts without nulls, each once.
        may_be_names: whether two words in a cell would be a person's name, not a category.
    """
    trimmed = pc.utf8_trim_whitespace(distinct)
    filled = trimmed.filter(pc.not_equal(trimmed, ""))
    if len(filled) == 0:
        return ""
    if _share(filled, _EMAIL) > 0:
        return "e-mail addresses"
    texts = _sample(filled)
    bare = pc.utf8_upper(pc.replace_substring_regex(texts, "[ ./\u00a0-]", ""))
    national = next((number.what for number in NATIONAL if _are(number, bare)), "")
    if national:
        return national
    forms = {
        "national health numbers (NIR, INS)": _share(bare, _NIR_WITHOUT_KEY) > _MOST,
        "telephone numbers": _share(texts, _PHONE) > _SOME or _share(texts, _BARE_PHONE) > _MOST,
        "full dates, as of birth": _share(texts, _DATE) + _share(texts, _SPELLED_DATE) > _MOST,
        "postal addresses": _are_addresses(texts),
        "names of people": (may_be_names and _share(texts, _PERSON) > _MOST) or _are_names(texts),
    }
    return next((form for form, is_seen in forms.items() if is_seen), "")


def _are(number: NationalNumber, bare: pa.Array) -> bool:
    """Return whether the share that proves it are such numbers."""
    if len(bare) < number.least:
        return False
    candidates = bare.filter(pc.match_substring_regex(bare, f"^({number.form})$"))
    if len(candidates) <= number.share * len(bare):
        return False
    return sum(map(number.is_valid, candidates.to_pylist())) > number.share * len(bare)


def _are_addresses(texts: pa.Array) -> bool:
    streets = _share(texts, _STREETS) + _share(texts, _NAMED_STREETS)
    return streets > _SOME or _share(texts, _TOWN) > _NEARLY_ALL


def _are_names(texts: pa.Array) -> bool:
    """Return whether texts are names with a title, or many capitals that each come with a name.

    "MRI Brain" and "MRI Knee" share their capitals; families in a column mostly do not.
    """
    if _share(texts, _TITLED) > _SOME:
        return True
    found = texts.filter(pc.match_substring_regex(texts, _FAMILY_FIRST))
    if len(found) < _MANY or len(found) <= _MOST * len(texts):
        return False
    families = pc.struct_field(pc.extract_regex(found, _CAPITALS), "family")
    return len(pc.unique(families)) > _MOST * len(found)


def _sample(texts: pa.Array) -> pa.Array:
    """Return at most `_SAMPLE` of the texts, evenly from first to last."""
    step = -(-len(texts) // _SAMPLE)
    return texts.take(pa.array(range(0, len(texts), step))) if step > 1 else texts


def _share(texts: pa.Array, pattern: str) -> float:
    return _mean(pc.match_substring_regex(texts, pattern))


def _mean(facts: pa.Array) -> float:
    return float(pc.mean(pc.cast(facts, pa.float64())).as_py())
