"""Padding in front of a convolution that torch cannot express: other widths left and right."""

from __future__ import annotations

from collections import Counter
from typing import Any

from netcut_fx.backends.tvm.toolchain import import_tvm

#: Dimensions that are padded: those of the image.
_PLANE = 2


def join_padding(module: Any) -> Any:
    """`module` in which zeros around what one 2-d convolution reads are added by that convolution.

    `netcut_fx.passes.padding` does so where both sides get the same; TVM's own convolution takes any widths.
    """
    import_tvm()
    import tvm_ffi
    from tvm import relax

    main = module["main"]
    uses: Counter[Any] = Counter()
    tvm_ffi.structural_walk(main.body, (relax.Var, lambda var: uses.update([var])))
    paddings = {
        binding.var: binding.value
        for block in main.body.blocks
        for binding in block.bindings
        # A variable stands where it is bound, too.
        if _is_zeros(binding.value) and uses[binding.var] == 2
    }
    if not paddings:
        return module

    @relax.expr_functor.mutator
    class Joiner(relax.PyExprMutator):
        def visit_call_(self, call: Any) -> Any:
            padding = paddings.get(call.args[0]) if _is(call, "relax.nn.conv2d") else None
            if padding is None:
                return super().visit_call_(call)
            data, weight = self.visit_expr(padding.args[0]), self.visit_expr(call.args[1])
            top, bottom, left, right = (int(n) for n in padding.attrs.pad_width[-2 * _PLANE :])
            added = (top, left, bottom, right)
            given = call.attrs
            return relax.op.nn.conv2d(
                data,
                weight,
                strides=list(given.strides),
                padding=[int(own) + more for own, more in zip(given.padding, added, strict=True)],
                dilation=list(given.dilation),
                groups=given.groups,
                data_layout=given.data_layout,
                kernel_layout=given.kernel_layout,
                out_layout=given.out_layout,
                out_dtype=given.out_dtype,
            )

    joiner = Joiner(module)
    joiner.builder_.update_func(module.get_global_var("main"), joiner.visit_expr(main))
    return relax.transform.DeadCodeElimination(["main"])(joiner.builder_.get())


def _is(value: Any, name: str) -> bool:
    return getattr(getattr(value, "op", None), "name", "") == name


def _is_zeros(value: Any) -> bool:
    """Whether `value` adds zeros around images, and nothing else."""
    if not _is(value, "relax.nn.pad") or value.attrs.pad_mode != "constant" or float(value.attrs.pad_value) != 0.0:
        return False
    *others, _, _, _, _ = (int(n) for n in value.attrs.pad_width)
    return not any(others) and min(int(n) for n in value.attrs.pad_width) >= 0
