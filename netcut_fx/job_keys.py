"""Keys of a job's stored stages: everything that decides what they hold. Other options, code or target: other keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from netcut_fx.code_version import sources_digest
from netcut_fx.graph import Frontier, TracedModule
from netcut_fx.job_options import RunOptions
from netcut_fx.text import to_text

#: Code that decides what the stored stages hold: an edit makes old results belong to another run.
FEATURE_SOURCES = (
    *("features.py", "layout.py", "preprocess.py", "data.py", "passes/head.py"),
    *("tracing.py", "symbolic.py", "exporting.py", "exported_graph.py", "leaf_rules.py", "modes.py"),
    *("mode_merging.py", "fixed_values.py", "opaque_calls.py", "example_inputs.py", "operation_kinds.py"),
    *("pooling.py", "channel_axis.py", "class_token.py"),
)
TIMING_SOURCES = (
    *("measure.py", "calm.py", "profiling.py", "backends/tvm/"),
    *("passes/fold_batch_norm.py", "passes/simplify.py", "passes/padding.py", "passes/no_ops.py"),
)


def network_facts(traced: TracedModule) -> dict[str, Any]:
    """What identifies a traced network: its graph and its weights."""
    return {"graph": to_text(traced), "traced_by": traced.traced_by, "weights": traced.state_hash()}


def network_key(
    traced: TracedModule, frontiers: Sequence[Frontier], data_digest: str, options: RunOptions
) -> dict[str, Any]:
    """Key of what is computed from the network and the images."""
    ignored = options.ignored
    return {
        "code": sources_digest(FEATURE_SOURCES),
        "torch": torch.__version__,
        **network_facts(traced),
        "data": data_digest,
        "seed": options.seed,
        "frontiers": [list(f.nodes) for f in frontiers],
        "pool": options.pool,
        "tracing": {"via": options.via, "leaf_modules": list(options.leaf_modules)},
        "ignored": [list(ignored.names), list(ignored.modules), list(ignored.operations)],
    }


def timing_facts(fingerprint: str) -> dict[str, Any]:
    """What identifies a clock: the code that measures, and the target."""
    return {"timing_code": sources_digest(TIMING_SOURCES), "target": fingerprint}


def target_key(network: dict[str, Any], fingerprint: str, options: RunOptions) -> dict[str, Any]:
    """Key of what is measured on the target."""
    return {
        **network,
        **timing_facts(fingerprint),
        "trials": options.trials,
        "head": [options.head, *options.hidden],
    }
