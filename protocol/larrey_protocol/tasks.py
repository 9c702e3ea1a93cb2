"""What a study's label asks of its model: how many outputs, and which loss of a row. No torch.

The label's kind in the contract decides both, so that no study can name a loss that does not fit
its outcome. A label travels as one float32 a row (`larrey_privacy.cohort.Cohort`).
"""

from __future__ import annotations

from larrey_protocol.contract import Contract

__all__ = ["label_values", "loss_name", "output_count"]


def output_count(contract: Contract) -> int:
    """Return how many numbers the model gives for a row: one logit for a binary label."""
    del contract  # every label is binary
    return 1


def loss_name(contract: Contract) -> str:
    """Return the loss of `larrey_privacy.losses` that fits the label."""
    del contract
    return "logistic"


def label_values(contract: Contract) -> tuple[float, ...]:
    """Return values that a row's label may take, for trying the loss out on synthetic rows."""
    del contract
    return (0.0, 1.0)
