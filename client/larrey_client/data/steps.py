"""The contract's closed list of preprocessing steps, as arithmetic on one column.

Pure functions. Every number a step uses stands in the contract; nothing is learnt from the rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.contract import Column, Step

__all__ = ["category_features", "number_features", "unit_rows"]

Numbers = NDArray[np.float64]


def number_features(column: Column, values: Numbers, is_missing: NDArray[np.bool_]) -> Numbers:
    """Return the features of a number column, "(rows, features)", in the contract's order.

    Args:
        column: of kind number.
        values: "(rows,)"; what stands at missing places is not read.
        is_missing: "(rows,)".
    """
    current = np.where(is_missing, 0.0, values)
    columns: list[Numbers] = []
    flag: list[Numbers] = []
    for step in column.steps:
        if step.step == "impute":
            current = np.where(is_missing, step.value, current)
            flag = [is_missing.astype(np.float64)] if step.indicator else []
        elif step.step == "bin":
            columns = _one_hot(np.searchsorted(step.edges, current, "right"), len(step.edges) + 1)
        else:
            current = _elementwise(step, current)
    return np.column_stack([*(columns or [current]), *flag])


def category_features(codes: NDArray[np.int64], values: int) -> Numbers:
    """Return 0/1 features "(rows, values)"; the code -1, missing, gives zeros."""
    return np.column_stack(_one_hot(codes, values))


def unit_rows(features: Numbers) -> Numbers:
    """Return each row divided by its own Euclidean norm; a row of zeros stays."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    safe: Numbers = np.where(norms > 0, norms, 1.0)
    return features / safe


def _elementwise(step: Step, x: Numbers) -> Numbers:
    match step.step:
        case "clip":
            clipped: Numbers = np.clip(x, step.low, step.high)
            return clipped
        case "log":
            with np.errstate(divide="ignore", invalid="ignore"):  # the caller checks finiteness
                logarithm: Numbers = np.log(x + step.offset)
            return logarithm
        case "scale":
            return 2.0 * (x - step.low) / (step.high - step.low) - 1.0
        case _:
            raise ValueError(f"step {step.step} is not elementwise")


def _one_hot(codes: NDArray[np.int64] | NDArray[np.intp], count: int) -> list[Numbers]:
    return [(codes == i).astype(np.float64) for i in range(count)]
