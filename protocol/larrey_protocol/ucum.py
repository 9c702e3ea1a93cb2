r"""Whether a text is a unit of the Unified Code for Units of Measure, case-sensitive form.

Checked: the grammar (terms joined by ``.`` and ``/``, exponents, parentheses, annotations in
braces) and that every atom is one of the closed list below, with a metric prefix only where UCUM
allows one. That catches ``mgdl``, ``mm\L`` and ``MMOL/L``. Not checked: whether the unit fits the
quantity, and the atoms that medicine does not use. Source: https://ucum.org/ucum
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["is_ucum"]

_PREFIXES = "Y Z E P T G M k h da d c m u n p f a z y Ki Mi Gi Ti"
# Atoms that take a metric prefix.
_METRIC = (
    "m s g rad K C cd mol sr Hz N Pa J W A V F Ohm S Wb T H lm lx Bq Gy Sv kat eq osm l L t bar"
    " Cel cal eV u U [IU] [iU] B Np B[V] bit By dyn G R RAD REM Ci ar st m[Hg] m[H2O] g%"
)
# Atoms that stand alone.
_PLAIN = (
    "% [ppth] [ppm] [ppb] [pptr] [pH] [pi] 10* 10^ gon deg ' '' min h d wk mo mo_j mo_s mo_g a a_j"
    " a_t a_g atm [degF] [in_i] [ft_i] [lb_av] [oz_av] [mi_i] [psi] [gr] [Cal] [cup_us] [tsp_us]"
    " [tbs_us] [foz_us] [pt_us] [drp] [Ch] [hpf] [lpf] [CFU] [PFU] [FFU] [BAU] [AU] [EU] [ELU] [Lf]"
    " [S] [MET] [diop] [PRU] [wood'U] [arb'U] [USP'U] [GPL'U] [MPL'U] [APL'U] [beth'U] [anti'Xa'U]"
    " [todd'U] [dye'U] [smgy'U] [bdsk'U] [ka'U] [knk'U] [mclg'U] [tb'U] [CCID_50] [TCID_50]"
    " [EID_50] [Amb'a'1'U] [D'ag'U]"
)
_SCALED = frozenset(_PLAIN.split() + _METRIC.split()) | {
    prefix + atom for prefix in _PREFIXES.split() for atom in _METRIC.split()
}
_ANNOTATION = re.compile(r"\{[!-z|~ ]{0,40}\}")  # printable ASCII but braces
_EXPONENT = re.compile(r"[+-]?\d{1,3}$")
_TOKEN = re.compile(r"\[[^\[\]{} ]{1,30}\]|[^()./\[\]{} ]|[()./]")
_LONGEST = 64


@lru_cache(maxsize=1024)
def is_ucum(text: str) -> bool:
    """Return whether ``text`` is a unit as described above; "1" is the unit of a ratio or count."""
    if not 0 < len(text) <= _LONGEST or not text.isascii():
        return False
    bare, marks = _ANNOTATION.subn("", text)
    if "{" in bare or "}" in bare or " " in bare:
        return False
    return (not bare and marks == 1) or _is_term(bare, has_annotation=marks > 0)


def _is_term(text: str, *, has_annotation: bool) -> bool:
    """Return whether the text is components joined by dots and slashes, brackets balanced."""
    text = text.removeprefix("/")
    parts, depth, current = [], 0, ""
    for token in _TOKEN.findall(text):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth < 0:
            return False
        if depth == 0 and token in ("/", "."):
            parts.append(current)
            current = ""
        else:
            current += token
    parts.append(current)
    is_whole = sum(len(part) for part in parts) + len(parts) - 1 == len(text)
    return (
        depth == 0
        and is_whole
        and all(_is_component(part, has_annotation=has_annotation) for part in parts)
    )


def _is_component(text: str, *, has_annotation: bool) -> bool:
    if text.startswith("(") and text.endswith(")"):
        return _is_term(text[1:-1], has_annotation=has_annotation)
    if not text:
        return has_annotation  # "{cells}/uL": the annotation stood alone
    if text.isdigit() or text in _SCALED:
        return True
    power = _EXPONENT.search(text)
    return power is not None and text[: power.start()] in _SCALED
