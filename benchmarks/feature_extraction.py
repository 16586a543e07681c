"""What torchvision's ``create_feature_extractor`` makes of the same cuts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.exactness import equal
from benchmarks.networks import torchvision_module
from netcut_fx.graph import Frontier


def extractor_row(model: nn.Module, frontiers: Sequence[Frontier], image: Tensor, truth: dict[str, Tensor]) -> Any:
    """Try every one of `frontiers` with torchvision's feature extraction.

    Parameters
    ----------
    model : torch.nn.Module
        The source, in eval mode.
    frontiers : sequence of Frontier
        As found by us.
    image : Tensor
        Input.
    truth : dict
        fx node name to the source's own activation there.

    Returns
    -------
    dict
        ``cuts``: how many it can make; ``right``: how many of these give the source's activation;
        ``shares_parameters``: whether what it makes holds the memory of its source; ``seconds_per_cut``: median.
    """
    extraction = torchvision_module("torchvision.models.feature_extraction")
    tracer = extraction.NodePathTracer()
    try:
        tracer.trace(model)
    except Exception as error:  # whatever torch.fx raises on this network
        reason = " ".join(str(error).split())[:160]
        return {"cuts": 0, "right": 0, "shares_parameters": None, "seconds_per_cut": None, "error": reason}
    names = {node.name: name for node, name in tracer.node_to_qualname.items()}
    own = {p.data_ptr() for p in model.parameters()}
    made = right = 0
    sharing: list[bool] = []
    seconds: list[float] = []
    problem: str | None = None
    for frontier in frontiers:
        if not all(node in names for node in frontier.nodes):
            problem = f"{frontier.name}: no such node there"
            continue
        start = time.perf_counter()
        try:
            found = extraction.create_feature_extractor(model, [names[node] for node in frontier.nodes])
        except Exception as error:  # whatever it raises counts as a cut that it cannot make
            problem = f"{frontier.name}: {' '.join(str(error).split())[:160]}"
            continue
        seconds.append(time.perf_counter() - start)
        made += 1
        sharing.append(any(p.data_ptr() in own for p in found.parameters()))
        with torch.no_grad():
            answer = found(image)
        right += all(equal(answer[names[node]], truth[node]) for node in frontier.nodes)
    row = {
        "cuts": made,
        "right": right,
        "shares_parameters": any(sharing) if sharing else None,
        "seconds_per_cut": statistics.median(seconds) if seconds else None,
    }
    return row if problem is None else {**row, "error": problem}
