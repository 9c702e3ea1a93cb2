"""What a node knows, in plain words for the person who must decide. Pure text from JSON values.

English and French have the same phrases under the same keys. Text that came from outside is shown
on one line, without what could forge or hide another. Where epsilon is named, so are its unit,
neighbours, delta and accountant.
"""

from larrey_client.explain.decisions import (
    explain_decided,
    explain_permit,
    explain_permits,
    explain_policy,
)
from larrey_client.explain.status import explain_isolation, explain_status, explain_studies
from larrey_client.explain.study import explain_study

__all__ = [
    "explain_decided",
    "explain_isolation",
    "explain_permit",
    "explain_permits",
    "explain_policy",
    "explain_status",
    "explain_studies",
    "explain_study",
]
