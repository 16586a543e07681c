"""Whether cut networks compute what their source computes: activations, gradients, export."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from netcut_fx.cutting import cut
from netcut_fx.graph import Frontier, TracedModule
from netcut_fx.passes.head import HeadPass

#: Classes of the new head.
CLASSES = 10


def equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors agree bit for bit; NaN is equal to NaN."""
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())


def relative_error(one: Tensor, other: Tensor) -> float:
    """Largest difference over the largest magnitude."""
    scale = float(other.abs().max())
    return float((one - other).abs().max()) / scale if scale else float((one - other).abs().max())


def activations(traced: TracedModule, names: set[str], image: Tensor) -> tuple[dict[str, Tensor], Any]:
    """The value of each named node as it was made, copied before anything can change it, and the output."""
    found: dict[str, Tensor] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.name in names:
                found[n.name] = value.detach().clone()
            return value

    return found, Recorder(traced.graph_module).run(image)


@contextlib.contextmanager
def hooked(model: nn.Module, wanted: set[str]) -> Iterator[dict[str, Tensor]]:
    """While this holds, a run of `model` leaves what its modules of these paths return, if that is one tensor."""
    found: dict[str, Tensor] = {}
    calls: dict[str, int] = {}
    handles: list[Any] = []

    def note(path: str, value: Any) -> None:
        calls[path] = calls.get(path, 0) + 1
        if isinstance(value, (tuple, list)) and len(value) == 1:
            value = value[0]
        if isinstance(value, Tensor) and calls[path] == 1:
            found[path] = value.clone()
        else:
            found.pop(path, None)

    for path, module in model.named_modules():
        if path in wanted:
            handles.append(module.register_forward_hook(lambda _m, _x, y, path=path: note(path, y)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def first_tensor(value: Any) -> Tensor:
    """The first tensor of a nested output."""
    while not isinstance(value, Tensor):
        value = next(part for part in (value.values() if isinstance(value, dict) else value) if part is not None)
    return value


def cut_row(
    model: nn.Module, traced: TracedModule, frontiers: Sequence[Frontier], image: Tensor
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Cut at every frontier and compare with the source; also the source's activations by fx node name.

    Each trimmed network, head included, runs once; what crosses the cut is compared with the activation of the uncut
    graph at that node. That graph itself is compared with the source: its output, and where a frontier is the end of a
    module, what this module returns there.
    """
    names = {node for frontier in frontiers for node in frontier.nodes}
    by_name = {f.nodes[0]: f.name for f in frontiers if f.width == 1}
    with hooked(model, set(by_name.values())) as modules, torch.no_grad():
        answer = first_tensor(model(image))
    with torch.no_grad():
        truth, own_answer = activations(traced, names, image)
    pairs = [(truth[node], modules[name]) for node, name in by_name.items() if name in modules]
    # A module may return its frontier in another shape, or return something else beside it.
    pairs = [(one, other) for one, other in pairs if one.shape == other.shape]
    own = first_tensor(own_answer)
    checked = len(pairs)
    exact = equal(own, answer) and all(equal(*pair) for pair in pairs)
    worst = max([relative_error(own, answer), *(relative_error(*pair) for pair in pairs)])
    wrong: list[str] = []
    without_gradient: list[str] = []
    seconds: list[float] = []
    head = HeadPass(CLASSES)
    # What is there already is not searched for circles again after each cut.
    gc.collect()
    gc.freeze()
    for frontier in frontiers:
        start = time.perf_counter()
        trn = cut(traced, frontier, head=head)
        seconds.append(time.perf_counter() - start)
        # Attention takes other kernels where a gradient is wanted.
        with torch.no_grad():
            found, _ = activations(trn, set(frontier.nodes), image)
        pairs = [(found[node], truth[node]) for node in frontier.nodes]
        if not all(equal(*pair) for pair in pairs):
            wrong.append(frontier.name)
        worst = max([worst, *(relative_error(*pair) for pair in pairs)])
        if not _gradient_reaches_the_first_layer(trn, image):
            without_gradient.append(frontier.name)
        # Modules refer to each other in circles: without this, dozens of cut networks lie in memory.
        del trn
        gc.collect()
    gc.unfreeze()
    row: dict[str, Any] = {
        "cuts": len(frontiers),
        "exact": exact and not wrong,
        "worst_relative_error": worst,
        "checked_against_modules": checked,
        "gradients": not without_gradient,
        "cut_seconds": statistics.median(seconds),
    }
    if wrong or without_gradient:
        row["wrong"], row["without_gradient"] = wrong, without_gradient
    return row, truth


def _gradient_reaches_the_first_layer(trn: TracedModule, image: Tensor) -> bool:
    """Whether it is not zero; in double precision where random weights let it underflow in single."""
    if _first_gradient(trn, image).count_nonzero():
        return True
    trn.graph_module.double()
    return bool(_first_gradient(trn, image.double()).count_nonzero())


def _first_gradient(trn: TracedModule, image: Tensor) -> Tensor:
    logits = trn.graph_module(image)
    assert logits.shape[1:] == (CLASSES,)
    first = next(p for name, p in trn.graph_module.named_parameters() if not name.startswith("head."))
    (gradient,) = torch.autograd.grad(logits.square().sum(), first, allow_unused=True)
    return torch.zeros(1) if gradient is None else gradient


def exports(traced: TracedModule, frontier: Frontier, image: Tensor) -> bool:
    """Whether ``torch.export`` takes the network cut at `frontier`, and its program answers as the network does."""
    trn = cut(traced, frontier, head=HeadPass(CLASSES)).graph_module
    program = torch.export.export(trn, (image,))
    with torch.no_grad():
        return relative_error(program.module()(image), trn(image)) < 1e-5
