"""Pooled features of every frontier from one pass of the frozen network.

The trunk up to a frontier is the same in every trimmed network, so one pass of the uncut network over the data yields
what the head of *each* trimmed network reads. The graph is copied up to the deepest frontier, and behind each crossing
node its pooled value is taken at once, before an operation in place could change the tensor.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from netcut_fx.data import Dataset
from netcut_fx.errors import InvalidFrontier, NetcutError
from netcut_fx.graph import Frontier, TracedModule
from netcut_fx.layout import channels_last_
from netcut_fx.memory import check_memory
from netcut_fx.pooling import Pool, PoolOption, can_be_pooled, chosen_pool, pooled_channels
from netcut_fx.pooling import pool as pool_tensor

Features = NDArray[np.float32]

#: Called with the number of images done and the number of all images.
Progress = Callable[[int, int], None]

Inputs = NDArray[np.float32] | Tensor | Sequence[NDArray[np.float32] | Tensor] | Dataset


def pooled_features(
    traced: TracedModule,
    frontiers: Iterable[Frontier],
    inputs: Inputs,
    *,
    batch: int = 32,
    progress: Progress | None = None,
    pool: PoolOption = "auto",
) -> dict[str, Features]:
    """Pooled features of every frontier, with one forward pass per batch.

    Each crossing tensor is pooled as the head pools it (see `netcut_fx.pooling`); the tensors of one frontier are
    concatenated. Nothing behind the deepest frontier is computed.

    Parameters
    ----------
    traced : TracedModule
        The uncut network. Left as it is; a copy of its weights runs.
    frontiers : iterable of Frontier
        Of this network.
    inputs : float32 (N, C, H, W), a sequence of arrays for a network with several inputs, or a Dataset
        Of a dataset all images are taken, in its order, normalised a batch at a time.
    batch : int
        Images at a time. Small batches stay in the cache and are the fastest on a CPU.
    progress : callable, optional
        Called after each batch with images done and all images.
    pool : {"auto", "mean", "class-token"}
        As for `netcut_fx.HeadPass`.

    Returns
    -------
    dict
        Frontier name to float32 (N, C_total).

    Raises
    ------
    InvalidFrontier
        If a frontier does not belong to this network, or does not carry features.
    PassError
        If a class token is asked for where there is none.
    NetcutError
        If the inputs do not fit the network, or there are none.
    DataError
        If the features do not fit into memory.
    """
    chosen = tuple(frontiers)
    for frontier in chosen:
        for name in frontier.nodes:
            if name not in traced.by_name:
                raise InvalidFrontier(
                    f"frontier {frontier.name} is not of {traced.name}: there is no node {name}; use frontiers(traced)"
                )
    groups = {frontier.name: frontier.nodes for frontier in chosen}
    if not groups:
        return {}
    return node_features(traced, groups, inputs, batch=batch, progress=progress, pool=pool)


def node_features(
    traced: TracedModule,
    groups: dict[str, tuple[str, ...]],
    inputs: Inputs,
    *,
    batch: int = 32,
    progress: Progress | None = None,
    pool: PoolOption = "auto",
) -> dict[str, Features]:
    """As `pooled_features`, for groups of nodes given by their fx names."""
    count, batches = _batches(traced, inputs, batch)
    order = tuple(dict.fromkeys(n for nodes in groups.values() for n in nodes))
    kinds: dict[str, Pool] = {name: _pool_kind(traced, name, pool) for name in order}
    channels = {name: pooled_channels(traced.by_name[name].meta["spec"], kind) for name, kind in kinds.items()}
    widths = {name: sum(channels[n] for n in nodes) for name, nodes in groups.items()}
    check_memory(
        count * sum(widths.values()) * 4,
        f"the pooled features of {len(groups)} frontiers for {count} images",
        "use fewer images, or a coarser granularity",
    )
    result = {name: np.empty((count, width), np.float32) for name, width in widths.items()}
    module = _pooling_graph(traced, kinds)
    done = 0
    with torch.inference_mode():
        for number, part in enumerate(batches):
            if number == 0:
                channels_last_(module, [x[:1] for x in part])
            pooled = dict(zip(order, cast(tuple[Tensor, ...], module(*part)), strict=True))
            size = len(part[0])
            for name, nodes in groups.items():
                torch.cat([pooled[n] for n in nodes], 1, out=torch.from_numpy(result[name][done : done + size]))
            done += size
            if progress is not None:
                progress(done, count)
    return result


def _pool_now(value: Tensor, kind: Pool) -> Tensor:
    pooled = pool_tensor(value, kind).float()
    # What was not averaged is still the tensor itself or a part of it, which a later operation may overwrite.
    return pooled.clone() if kind in ("none", "class-token") else pooled


def _pool_kind(traced: TracedModule, name: str, option: PoolOption) -> Pool:
    node = traced.by_name[name]
    spec = node.meta["spec"]
    if not can_be_pooled(spec):
        raise InvalidFrontier(
            f"node {node.meta['qualname']} yields {spec}, which cannot be pooled; "
            "cut where a floating-point tensor of at least 2 dimensions crosses"
        )
    return chosen_pool(traced, node, option)


def _pooling_graph(traced: TracedModule, wanted: Mapping[str, Pool]) -> fx.GraphModule:
    """Own copy of the network up to the last of the `wanted` nodes, whose outputs are their pooled values.

    Side branches are kept even where no output needs them: one may write in place to a tensor that an output reads.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    pooled: dict[str, fx.Node] = {}
    for node in traced.nodes:
        if len(pooled) == len(wanted) and node.op != "placeholder":
            break
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if node.name in wanted:
            pooled[node.name] = graph.call_function(_pool_now, (copies[node], wanted[node.name]))
    graph.output(tuple(pooled[name] for name in wanted))
    return copy.deepcopy(fx.GraphModule(traced.graph_module, graph)).eval()


def _batches(traced: TracedModule, inputs: Inputs, batch: int) -> tuple[int, Iterator[tuple[Tensor, ...]]]:
    """Number of images, and the inputs batch by batch."""
    device = next((p.device for p in traced.graph_module.parameters()), torch.device("cpu"))
    if isinstance(inputs, Dataset):
        dataset = inputs
        size = dataset.preprocess.size
        _check_inputs(traced, [(len(dataset.images), 3, *size)])

        def normalised() -> Iterator[tuple[Tensor, ...]]:
            for start in range(0, len(dataset.images), batch):
                yield (
                    torch.from_numpy(dataset.preprocess.normalise(dataset.images[start : start + batch])).to(device),
                )

        return len(dataset.images), normalised()
    many: Sequence[Any] = [inputs] if isinstance(inputs, (np.ndarray, Tensor)) else inputs
    tensors = [torch.as_tensor(x) for x in many]
    _check_inputs(traced, [tuple(x.shape) for x in tensors])
    count = len(tensors[0])
    slices = (slice(start, start + batch) for start in range(0, count, batch))
    return count, (tuple(x[part].to(device) for x in tensors) for part in slices)


def _check_inputs(traced: TracedModule, shapes: Sequence[tuple[int, ...]]) -> None:
    wanted = [spec.shape[1:] for spec in traced.input_specs]
    given = [shape[1:] for shape in shapes]
    if given != wanted or len({shape[0] for shape in shapes}) != 1:
        shown = ", ".join(str(shape) for shape in shapes)
        expected = ", ".join("(N, " + ", ".join(str(n) for n in shape) + ")" for shape in wanted)
        raise NetcutError(
            f"inputs of shape {shown} do not fit {traced.name}, which takes {expected}; "
            "use the input size that the network was traced with"
        )
    if shapes[0][0] == 0 or math.prod(shapes[0]) == 0:
        raise NetcutError(f"no images for {traced.name}; give at least one")
