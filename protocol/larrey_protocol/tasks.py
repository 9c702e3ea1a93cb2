"""What a study's label asks of its model: how many outputs, and which loss of a row. No torch.

The label's kind in the contract decides both, so that no study can name a loss that does not fit
its outcome. A label travels as one float32 a row (`larrey_privacy.cohort.Cohort`):

- binary: 1 or 0; one logit; logistic loss.
- class: the class's index in the contract; a logit a class; cross-entropy.
- number: ``(number - center) / scale``; the same as output; squared error or Huber's.
- survival: ``2 * intervals lived through + event``; a logit of the hazard an interval;
  the likelihood of discrete times.
"""

from __future__ import annotations

from larrey_protocol.contract import Contract
from larrey_protocol.errors import Refusal

__all__ = ["label_values", "loss_name", "output_count"]


def output_count(contract: Contract) -> int:
    """Return how many numbers the model gives for a row."""
    label = contract.label
    if label.kind == "class":
        return len(label.classes)
    return len(label.edges) if label.kind == "survival" else 1


def loss_name(contract: Contract) -> str:
    """Return the loss of `larrey_privacy.losses` that fits the label.

    Raises:
        Refusal: ``loss-couples-patients`` for Cox's partial likelihood.
    """
    label = contract.label
    match label.kind:
        case "binary":
            return "logistic"
        case "class":
            return "cross-entropy"
        case "number":
            return label.loss
        case "survival" if label.loss == "cox":
            raise Refusal(
                "loss-couples-patients",
                "Cox's partial likelihood compares each patient with all others of the batch who"
                " are still at risk, so that no bound holds for one patient's influence",
                'Take loss = "discrete-time", whose likelihood is one of each patient alone.',
            )
        case "survival":
            return "discrete-time"


def label_values(contract: Contract) -> tuple[float, ...]:
    """Return values that a row's label may take, for trying the loss out on synthetic rows."""
    label = contract.label
    match label.kind:
        case "binary":
            return (0.0, 1.0)
        case "class":
            return tuple(map(float, range(len(label.classes))))
        case "number":
            return tuple((bound - label.center) / label.scale for bound in label.range)
        case "survival":
            last = len(label.edges)
            return (0.0, 1.0, float(last), 2.0 * last - 1.0, 2.0 * last)
