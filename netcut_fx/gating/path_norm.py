"""Batch-norms with weights and statistics of their own on each path.

What reaches a batch-norm depends on what was left out before it, so that one set of statistics fits no path. Each path
is compiled for itself: its batch-norms are folded into its convolutions, and cost nothing. After the switchable
batch-norm of Yu et al., "Slimmable Neural Networks" (ICLR 2019, arXiv 1812.08928), there for widths.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class PathNorm(nn.Module):
    """A batch-norm for each path; all alike at first.

    Parameters
    ----------
    norm : nn.BatchNorm2d
        What each begins as.
    paths : int
        How many there are.
    """

    def __init__(self, norm: nn.BatchNorm2d, paths: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(copy.deepcopy(norm) for _ in range(paths))
        #: The path of each row of the next input (N,); set by the cell around it.
        self.rows: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each row of ``(N, C, H, W)`` as its path does; without rows, as the last path."""
        if self.rows is None:
            return self.norms[-1](x)
        found, rows = self.rows.unique(return_inverse=True)
        norms: list[Any] = [self.norms[path] for path in found.tolist()]
        if len(norms) == 1:
            return norms[0](x)
        # Their own mode: a recipe may keep pretrained statistics.
        mean, var = _of_groups(x, rows, norms) if norms[0].training else _known(norms)
        factor = torch.stack([norm.weight for norm in norms]) * (var + norms[0].eps).rsqrt()
        offset = torch.stack([norm.bias for norm in norms]) - mean * factor
        factor, offset = (t[rows].to(x.dtype)[:, :, None, None] for t in (factor, offset))
        return torch.addcmul(offset, x, factor)


def _known(norms: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Running means and variances, each ``(norms, C)``."""
    return torch.stack([norm.running_mean for norm in norms]), torch.stack([norm.running_var for norm in norms])


def _of_groups(x: Tensor, rows: Tensor, norms: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Means and variances ``(norms, C)`` of the rows of each norm, which remembers them as `nn.BatchNorm2d` does."""
    var, mean = torch.var_mean(x.float(), (2, 3), correction=0)
    counts = rows.bincount(minlength=len(norms))

    def mean_of_groups(values: Tensor) -> Tensor:
        # No matrix product: automatic casts would make it bfloat16.
        return values.new_zeros(len(norms), values.shape[1]).index_add(0, rows, values) / counts[:, None]

    group_mean = mean_of_groups(mean)
    # Deviations from the mean of the group: differences of large squares would lose digits.
    group_var = mean_of_groups(var + (mean - group_mean[rows]) ** 2)
    known = _known(norms)
    with torch.no_grad():
        for i, norm in enumerate(norms):
            size = int(counts[i]) * x[0, 0].numel()
            if size == 1:
                continue
            norm.num_batches_tracked += 1
            norm.running_mean.lerp_(group_mean[i], norm.momentum)
            norm.running_var.lerp_(group_var[i] * size / (size - 1), norm.momentum)
    # One value for a channel has no variance.
    single = (counts * x[0, 0].numel() == 1)[:, None]
    return torch.where(single, known[0], group_mean), torch.where(single, known[1], group_var)


def give_path_norms(module: nn.Module, paths: int) -> None:
    """Replace each batch-norm inside `module` that learns statistics and weights by one with `paths` of its own."""
    for name, part in list(module.named_modules()):
        if type(part) is nn.BatchNorm2d and part.affine and part.running_var is not None and part.momentum is not None:
            owner, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(owner), attribute, PathNorm(part, paths))
