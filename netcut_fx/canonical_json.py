"""One text for one value: the JSON that fingerprints, cache keys and seals are computed over."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """JSON of `value` with sorted keys, no spaces, ASCII only.

    Tuples and lists give the same text. Raises `TypeError` for values JSON does not have and `ValueError` for NaN and
    infinity, which JSON does not have either.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical_sha256(value: Any) -> str:
    """SHA-256 of `canonical_json`, all 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()
