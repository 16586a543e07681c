"""Read a run's result object without trusting it: anything missing, null or not finite is None, never zero."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

Record = Mapping[str, Any]

#: What a number that should be there but is not known reads as; `NONE` stands for one that was never asked for.
UNKNOWN = "unknown"
NONE = "–"
MINUS = "\u2212"
_NBSP = "\u00a0"
# Characters that XML 1.0 forbids, and half surrogates that UTF-8 cannot write: names come from users.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def number(record: Record | None, key: str) -> float | None:
    """Finite number at `key`, else None."""
    return finite(record.get(key)) if record else None


def finite(value: object) -> float | None:
    """`value` as a float if it is a finite number (booleans are not), else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        converted = float(value)
    except OverflowError:
        return None
    return converted if math.isfinite(converted) else None


def text(record: Record | None, key: str, default: str = "") -> str:
    """Text at `key`, cleaned by `clean`; `default` where it is missing or null."""
    value = record.get(key) if record else None
    return default if value is None else clean(value)


def clean(value: object) -> str:
    """`value` as text that both HTML and XML can hold (not escaped yet)."""
    return _FORBIDDEN.sub("\ufffd", str(value))


def mapping(record: Record | None, key: str) -> Record:
    """Object at `key`, else an empty one."""
    value = record.get(key) if record else None
    return cast(Record, value) if isinstance(value, Mapping) else {}


def items(record: Record | None, key: str) -> tuple[Any, ...]:
    """List at `key`, else an empty one."""
    value = record.get(key) if record else None
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return tuple(cast("Sequence[Any]", value))
    return ()


def records(record: Record | None, key: str) -> tuple[Record, ...]:
    """Objects in the list at `key`."""
    return tuple(cast(Record, item) for item in items(record, key) if isinstance(item, Mapping))


def format_ms(value: float | None, missing: str = UNKNOWN) -> str:
    """Milliseconds with as many digits as are worth reading, without the unit."""
    if value is None:
        return missing
    for least, digits in ((100, 1), (0.1, 2), (0.01, 3)):
        if abs(value) >= least:
            return f"{value:.{digits}f}"
    return f"{value:.4f}" if value else "0"


def format_interval(low: float | None, high: float | None, scale: float = 1.0) -> str:
    """``[low, high]``, or an empty text if either end is not known. With `scale` 100: per cent, one digit."""
    if low is None or high is None:
        return ""
    if scale == 1.0:
        return f"[{format_ms(low)}, {format_ms(high)}]"
    return f"[{low * scale:.1f}, {high * scale:.1f}]"


def format_percent(value: float | None, missing: str = NONE) -> str:
    """Format a share of one as per cent."""
    return missing if value is None else f"{value * 100:.1f}{_NBSP}%"


def format_signed(value: float | None, unit: str = "", missing: str = NONE) -> str:
    """Format a difference with one digit and its sign, which is what the rounded value has."""
    if value is None:
        return missing
    rounded = round(value, 1)
    return f"{'+' if rounded > 0 else MINUS if rounded < 0 else ''}{abs(rounded):.1f}{unit}"


def format_count(value: float | None, missing: str = UNKNOWN) -> str:
    """Format a count in thousands or millions."""
    if value is None:
        return missing
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            scaled = value / size
            return f"{scaled:.1f}{_NBSP}{letter}" if scaled >= 10 else f"{scaled:.2f}{_NBSP}{letter}"
    return f"{value:.0f}"


def format_mflops(flops: float | None, missing: str = UNKNOWN) -> str:
    """Floating-point operations in millions, without the unit."""
    if flops is None:
        return missing
    millions = flops / 1e6
    return f"{millions:,.0f}" if millions >= 100 else f"{millions:.1f}" if millions >= 0.1 else f"{millions:.3f}"


def format_gflops_per_s(flops: float | None, time_ms: float | None, missing: str = NONE) -> str:
    """Achieved GFLOP/s; `missing` for kernels that compute nothing or whose time is not known."""
    if not flops or not time_ms or time_ms <= 0:
        return missing
    return f"{flops / time_ms / 1e6:.1f}"


def format_shape(shape: object) -> str:
    """``1×32×112×112``; several shapes joined by ``+``."""
    if not isinstance(shape, Sequence) or isinstance(shape, (str, bytes)):
        return NONE if shape is None else clean(shape)
    parts = list(cast("Sequence[Any]", shape))
    if not parts:
        return "scalar"
    if any(isinstance(part, Sequence) and not isinstance(part, str) for part in parts):
        return " + ".join(format_shape(part) for part in parts)
    return "×".join(clean(part) for part in parts)


def shorten(name: str, length: int) -> str:
    """`name`, its middle left out if it is longer than `length`: both ends of a qualified name tell it apart."""
    if len(name) <= length:
        return name
    tail = (length - 1) * 2 // 3
    return f"{name[: length - 1 - tail]}…{name[-tail:]}"
