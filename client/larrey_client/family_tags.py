"""Names of cohort families as they leave the site: tags that only the site can make.

A family is called as its first dataset is, and what a hospital calls its data is nobody's business
outside. The secret follows from the site's signing key: whoever can tell which anchors are this
site's own can also read them, whatever became of the state folder. HMAC (RFC 2104) with SHA-256,
cut to 64 bits: enough to tell a thousand families apart.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from larrey_protocol.keys import SigningKey

__all__ = ["families_by_tag", "tags_of"]

_PURPOSE = "anchored families"
_DIGITS = 16


def tags_of(key: SigningKey, families: Iterable[str]) -> dict[str, str]:
    """Return the tag of each family under a site's key: ``f-`` and 16 hexadecimal digits."""
    secret = key.derive(_PURPOSE)
    return {name: f"f-{hmac.new(secret, name.encode(), 'sha256').hexdigest()[:_DIGITS]}"
            for name in families}  # fmt: skip


def families_by_tag(key: SigningKey, families: Iterable[str]) -> dict[str, str]:
    """Return the families that are known here, by their tags."""
    return {tag: family for family, tag in tags_of(key, families).items()}
