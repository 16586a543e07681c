"""Exponential and its relatives as polynomials, which code generation can make vectors of.

The compiler would call the C library once for each lane. Errors stay below 1e-6 of the result or of one, whichever is
larger. Results are floats of normal size: what would be smaller than 1e-38 stays there, and nothing becomes infinite.
What is no number stays none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_LOG2_E = 1.44269504088896341
#: ln 2 in two parts, the first of few digits, so that its multiples are exact.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
#: Between these the power of two is a normal number.
_SMALLEST, _LARGEST = -87.33, 88.02
#: (exp(r) - 1 - r) / r**2 for \|r\| < ln(2) / 2, highest power first; from the Cephes library.
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_MANTISSA_BITS, _EXPONENT_BIAS = 23, 127
#: erf(x) / x as a quotient of polynomials of x**2, highest power first, and where erf is one; from the Eigen library.
_ERF_ABOVE = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_BELOW = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
_ERF_ONE = 4.0


def use_vector_functions() -> None:
    """Have code for CPUs compute float32 exponentials, sigmoids, hyperbolic tangents and error functions inline."""
    from tvm.tirx import register_intrin_lowering

    for name, make in (("exp", _exp), ("sigmoid", _sigmoid), ("tanh", _tanh), ("erf", _erf)):
        register_intrin_lowering(f"tirx.{name}", target="llvm", f=_for_float32(make), level=99)


def _for_float32(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def lowered(call: Any) -> Any:
        return make(call.args[0]) if str(call.ty.dtype).startswith("float32") else call

    return lowered


def _exp(x: Any) -> Any:
    from tvm import tirx

    def within(x: Any) -> Any:
        n = tirx.floor(x * _LOG2_E + 0.5)
        return _named(n, lambda n: _named(x - n * _LN2_HIGH - n * _LN2_LOW, lambda r: _power(n, r)))

    return _named(_between(x, _SMALLEST, _LARGEST), within)


def _power(n: Any, r: Any) -> Any:
    """``2**n * exp(r)``."""
    from tvm import tirx

    integers = r.ty.with_dtype("int32") if hasattr(r.ty, "with_dtype") else str(r.ty).replace("float", "int")
    bits = (n.astype(integers) + _EXPONENT_BIAS) << _MANTISSA_BITS
    return (_polynomial(_EXP, r) * r * r + r + 1.0) * tirx.reinterpret(r.ty, bits)


def _sigmoid(x: Any) -> Any:
    return _like(x, 1.0) / (_exp(-x) + 1.0)


def _tanh(x: Any) -> Any:
    return _like(x, 1.0) - _like(x, 2.0) / (_exp(x * 2.0) + 1.0)


def _erf(x: Any) -> Any:
    def quotient(x: Any) -> Any:
        return _named(x * x, lambda square: x * _polynomial(_ERF_ABOVE, square) / _polynomial(_ERF_BELOW, square))

    return _named(_between(x, -_ERF_ONE, _ERF_ONE), quotient)


def _between(x: Any, least: float, most: float) -> Any:
    """`x` within bounds. The bounds come first: where nothing compares, code takes the second operand, the NaN."""
    from tvm import tirx

    return tirx.min(_like(x, most), tirx.max(_like(x, least), x))


def _polynomial(coefficients: tuple[float, ...], x: Any) -> Any:
    value = _like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def _like(x: Any, value: float) -> Any:
    from tvm import tirx

    return tirx.const(value, x.ty)


def _named(value: Any, body: Callable[[Any], Any]) -> Any:
    """`body` of a variable that holds `value`."""
    from tvm import tirx

    variable = tirx.Var("x", value.ty)
    return tirx.Let(variable, value, body(variable))
