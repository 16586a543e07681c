"""Rewritings of a traced network, and how to compose them. Importing this package imports none of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netcut_fx.passes.base import Instrument, Pass, Pipeline
    from netcut_fx.passes.copying import copy_traced, weightless
    from netcut_fx.passes.cut import CutPass, cut_nodes
    from netcut_fx.passes.dead_code import DeadCode
    from netcut_fx.passes.fold_batch_norm import FoldBatchNorm
    from netcut_fx.passes.gate import GatePass
    from netcut_fx.passes.head import HeadPass, head_module
    from netcut_fx.passes.registry import format_pipeline, parse_pipeline, registered_passes
    from netcut_fx.passes.simplify import Simplify

__all__ = [
    "CutPass",
    "DeadCode",
    "FoldBatchNorm",
    "GatePass",
    "HeadPass",
    "Instrument",
    "Pass",
    "Pipeline",
    "Simplify",
    "copy_traced",
    "cut_nodes",
    "format_pipeline",
    "head_module",
    "parse_pipeline",
    "prepare_pipeline",
    "registered_passes",
    "weightless",
]

_HOME = {
    "CutPass": "cut",
    "DeadCode": "dead_code",
    "FoldBatchNorm": "fold_batch_norm",
    "GatePass": "gate",
    "HeadPass": "head",
    "Instrument": "base",
    "Pass": "base",
    "Pipeline": "base",
    "Simplify": "simplify",
    "copy_traced": "copying",
    "cut_nodes": "cut",
    "format_pipeline": "registry",
    "head_module": "head",
    "parse_pipeline": "registry",
    "registered_passes": "registry",
    "weightless": "copying",
}


def prepare_pipeline() -> Pipeline:
    """Build what runs in front of every compiler: ``fold-batch-norm, simplify, dead-code``."""
    from netcut_fx.passes.base import Pipeline
    from netcut_fx.passes.dead_code import DeadCode
    from netcut_fx.passes.fold_batch_norm import FoldBatchNorm
    from netcut_fx.passes.simplify import Simplify

    return Pipeline((FoldBatchNorm(), Simplify(), DeadCode()))


def __getattr__(name: str) -> Any:
    """Load what is asked for: the registry must be listable without importing torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
