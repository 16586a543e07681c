"""Replace the nest of a 3x3 convolution by the nests of Winograd's algorithm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from netcut_fx.backends.tvm.schedules.contraction import recognise
from netcut_fx.backends.tvm.schedules.stages import read_stages
from netcut_fx.backends.tvm.schedules.winograd import SPAN, TILE, WINDOW, Winograd, matrices, window_of
from netcut_fx.backends.tvm.toolchain import import_tvm

#: Names of the nests, in order: data with borders, transformed along lines and columns, products summed over
#: channels, sums transformed along lines, the result.
DATA, LINES, COLUMNS, PRODUCTS, SUMS, RESULT = (
    f"winograd_{name}" for name in ("data", "lines", "columns", "products", "sums", "result")
)


def with_winograd(function: Any, weight: Any, order: Winograd) -> Any:
    """`function` with its convolution by `weight`, one of its parameters, computed by Winograd's algorithm.

    Parameters
    ----------
    function : tvm.tirx.PrimFunc
        A fused kernel, not scheduled.
    weight : tvm.ir.Var
        Becomes a parameter in `order`.
    order : Winograd
        As `winograd_weights` says.
    """
    import_tvm()
    import tvm_ffi
    from tvm import s_tir, tirx

    stages = read_stages(function)
    place, found = next(
        (place, found)
        for place, stage in enumerate(stages)
        if (found := recognise(stage, frozenset([weight]))) is not None
    )
    nests = _nests(found, order)
    new = dict(zip(nests.params, (found.data.buffer, nests.params[1], found.stage.store.buffer), strict=True))
    inner = tvm_ffi.structural_map(nests.body, (type(weight), lambda var: new.get(var, var))).block
    root = function.body.block
    loops = list(root.body.seq) if isinstance(root.body, tirx.SeqStmt) else [root.body]
    loops[place : place + 1] = list(inner.body.seq)
    block = s_tir.SBlock(
        [], [], [], root.name_hint, tirx.SeqStmt(loops), alloc_buffers=[*root.alloc_buffers, *inner.alloc_buffers]
    )
    params = [nests.params[1] if param.same_as(weight) else param for param in function.params]
    return tirx.PrimFunc(params, s_tir.SBlockRealize([], True, block), attrs=function.attrs)


def _nests(found: Any, order: Winograd) -> Any:
    """A function of data, weights and result that computes the convolution `found`."""
    from tvm import te, tirx

    window = window_of(found)
    assert window is not None
    stage = found.stage
    # Which dimension of the data and of the result is which: images, lines, columns, channels.
    by_data = _places(stage, found.data.indices, (window.lines, window.columns, window.inner))
    by_result = _places(stage, stage.store.indices, (window.lines, window.columns, found.channel))
    images = found.data.shape[by_data[0]]
    lines, columns, inner, out = (axis.extent for axis in (window.lines, window.columns, window.inner, found.channel))
    down, across = -(-lines // TILE), -(-columns // TILE)
    read_lines, read_columns = lines + WINDOW - 1, columns + WINDOW - 1
    sums, _, data_matrix = matrices()
    dtype = "float32"

    def extents(*values: int) -> tuple[Any, ...]:
        return tuple(tirx.const(value, "int64") for value in values)

    data = te.placeholder(extents(*found.data.shape), dtype, "data")
    weights = te.placeholder(extents(*order.shape(found.weight.shape)), dtype, "weights")
    axis = te.reduce_axis((tirx.const(0, "int64"), tirx.const(inner, "int64")), "k")

    def element(n: Any, h: Any, w: Any, c: Any) -> Any:
        return data(*(value for _, value in sorted(zip(by_data, (n, h, w, c), strict=True))))

    def bordered(n: Any, h: Any, w: Any, c: Any) -> Any:
        # Where tiles cut the plane evenly, nothing beyond its border is read.
        asked = [h < read_lines] * (lines % TILE > 0) + [w < read_columns] * (columns % TILE > 0)
        value = element(n, h, w, c)
        return tirx.if_then_else(tirx.all(*asked), value, tirx.const(0.0, dtype)) if asked else value

    whole = te.compute(extents(images, down * TILE + WINDOW - 1, across * TILE + WINDOW - 1, inner), bordered, DATA)
    by_lines = te.compute(
        extents(images, down, across, SPAN, SPAN, inner),
        lambda n, y, x, i, j, c: _row(data_matrix, i, lambda k: whole[n, y * TILE + k, x * TILE + j, c]),
        LINES,
    )
    transformed = te.compute(
        extents(SPAN, SPAN, images, down, across, inner),
        lambda i, j, n, y, x, c: _row(data_matrix, j, lambda k: by_lines[n, y, x, i, k, c]),
        COLUMNS,
    )
    products = te.compute(
        extents(SPAN, SPAN, images, down, across, out),
        lambda i, j, n, y, x, o: te.sum(
            transformed[i, j, n, y, x, axis] * weights[i, j, o // order.lanes, axis, o % order.lanes], axis
        ),
        PRODUCTS,
    )
    summed = te.compute(
        extents(images, down, across, TILE, SPAN, out),
        lambda n, y, x, i, j, o: _row(sums, i, lambda k: products[k, j, n, y, x, o]),
        SUMS,
    )

    def result(*indices: Any) -> Any:
        n, h, w, o = (indices[place] for place in by_result)
        return _row(sums, w % TILE, lambda k: summed[n, h // TILE, w // TILE, h % TILE, k, o])

    return te.create_prim_func([data, weights, te.compute(extents(*stage.store.shape), result, RESULT)])


def _places(stage: Any, indices: Sequence[Any], axes: Sequence[Any]) -> tuple[int, ...]:
    """Which of `indices` walks the images, and which each of `axes`."""
    walked = [next(i for i, index in enumerate(indices) if axis in stage.used_by((index,))) for axis in axes]
    (images,) = set(range(len(indices))) - set(walked)
    return (images, *walked)


def _row(matrix: np.ndarray, row: Any, element: Callable[[int], Any]) -> Any:
    """Row `row` of `matrix` times a vector: a choice that falls when loops over rows are unrolled."""
    from tvm import tirx

    *others, chosen = (_combination(coefficients, element) for coefficients in matrix)
    for number, value in reversed(list(enumerate(others))):
        chosen = tirx.Select(row == number, value, chosen)
    return chosen


def _combination(coefficients: np.ndarray, element: Callable[[int], Any]) -> Any:
    """Sum of elements, even and odd ones apart: rows of opposite points share both halves but for a sign."""
    from tvm import tirx

    halves: list[tuple[float, Any]] = []
    for start in (0, 1):
        terms = [(float(c), element(k)) for k, c in enumerate(coefficients) if k % 2 == start and c]
        if not terms:
            continue
        sign = np.sign(terms[0][0])
        value: Any = None
        for coefficient, term in terms:
            scaled = term if abs(coefficient) == 1 else term * tirx.const(abs(coefficient), "float32")
            if value is None:
                value = scaled
            else:
                value = value + scaled if coefficient * sign > 0 else value - scaled
        halves.append((float(sign), value))
    halves.sort(key=lambda half: -half[0])
    (sign, value), *rest = halves
    if sign < 0:
        value = value * tirx.const(-1.0, "float32")
    for sign, other in rest:
        value = value + other if sign > 0 else value - other
    return value
