"""A result of a run as the report gets it: synthetic, but shaped like EfficientNet-Lite0 on handwritten digits."""

from __future__ import annotations

import math
import random
from typing import Any

_STAGES = ((1, 16, 112), (2, 24, 56), (2, 40, 28), (3, 80, 14), (3, 112, 14), (4, 192, 7), (1, 320, 7))
DEADLINE_MS = 5.26


def sample_result() -> dict[str, Any]:
    """A finished run with 18 candidates: chosen, feasible, measured, infeasible, unknown."""
    draw = random.Random(7)
    nodes, edges = _graph()
    kernels = _kernels(draw)
    candidates = _candidates(draw)
    chosen = next(c for c in candidates if c["verdict"] == "chosen")
    return {
        "schema_version": 1,
        "model": "efficientnet_lite0",
        "data": "digits",
        "deadline_ms": DEADLINE_MS,
        "deadline_from": "fraction 0.5 of uncut",
        "target": {
            "kind": "llvm",
            "mcpu": "icelake-server",
            "cpu_model": "Intel(R) Xeon(R) Processor @ 2.60GHz",
            "isa_features": ["avx2", "avx512f", "avx512vnni", "fma"],
            "threads": 1,
        },
        "granularity": "block",
        "head": {"kind": "netcut", "hidden": [256, 128], "classes": 10},
        "seed": 0,
        "trials": 32,
        "uncut": {
            "name": "efficientnet_lite0",
            "measured_ms": 10.52,
            "low_ms": 10.41,
            "high_ms": 10.74,
            "predicted_ms": 10.61,
            "test_accuracy": 0.9889,
            "test_low": 0.9717,
            "test_high": 0.9957,
            "validation_accuracy": 0.9917,
            "kept_flops": 142_000_000,
            "params": 3_680_000,
        },
        "chosen": {
            "frontier": chosen["name"],
            "predicted_ms": chosen["predicted_ms"],
            "low_ms": chosen["low_ms"],
            "high_ms": chosen["high_ms"],
            "measured_ms": chosen["measured_ms"],
            "measured_low_ms": chosen["measured_low_ms"],
            "measured_high_ms": chosen["measured_high_ms"],
            "test_accuracy": chosen["test_accuracy"],
            "test_low": 0.9598,
            "test_high": 0.9903,
            "validation_accuracy": chosen["validation_accuracy"],
            "kept_flops": chosen["kept_flops"],
            "params": chosen["kept_params"],
        },
        "candidates": candidates,
        "kernels": kernels,
        "graph": {"nodes": nodes, "edges": edges},
        "agreement": {"images": 64, "max_relative_error": 3.1e-6, "same_top1": 64},
        "stages": [
            {"name": name, "seconds": seconds, "reused": reused}
            for name, seconds, reused in (
                ("trace", 1.8, False),
                ("features", 21.4, False),
                ("tune", 214.0, True),
                ("profile", 12.7, False),
                ("retrain", 96.3, False),
                ("compile", 17.5, False),
                ("measure", 6.2, False),
                ("bundle", 0.9, False),
            )
        ],
        "decision": [
            "deadline 5.26 ms: 11 of 18 frontiers are predicted to meet it, 6 are not, 1 is unknown",
            "_blocks.10: quick head 97.2 %, predicted 5.21 ms; retrained 98.6 %, measured 5.38 ms: misses",
            "_blocks.9: quick head 96.4 %, predicted 4.71 ms; retrained 98.3 %, measured 4.81 ms: taken",
        ],
        "versions": {"netcut_fx": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "apache-tvm": "0.27.0.post1"},
        "bundle": "build/demo/bundle",
        "report": "build/demo/report.html",
    }


def _candidates(draw: random.Random) -> list[dict[str, Any]]:
    names = ["_conv_stem … _swish", *(f"_blocks.{i}" for i in range(16)), "_conv_head … _swish#2"]
    shapes = [(32, 48)] + [(c, s * 96 // 224) for n, c, s in _STAGES for _ in range(n)] + [(1280, 3)]
    times = [0.62, 1.02, 1.71, 2.22, 2.63, 2.98, 3.32, 3.77, 4.12, 4.43, 4.71, 5.21, 5.66, 6.35, 7.09, 7.86, 8.94, 10.2]
    candidates: list[dict[str, Any]] = []
    for index, (name, (channels, side), ms) in enumerate(zip(names, shapes, times, strict=True)):
        quick = 0.985 - 0.53 * math.exp(-index / 3.1) + draw.uniform(-0.006, 0.006) - 0.002 * max(index - 13, 0)
        spread = 0.03 + 0.01 * draw.random()
        feasible = ms <= DEADLINE_MS
        candidates.append(
            {
                "name": name,
                "width": 1,
                "shape": [[1, channels, side, side]],
                "kept_flops": int(3_900_000 + index * 8.1e6),
                "kept_params": int(1_000 + 11_000 * index**2),
                "predicted_ms": ms,
                "low_ms": round(ms * (1 - spread), 3),
                "high_ms": round(ms * (1 + spread), 3),
                "provenance": {"measured": round(ms * 0.97, 3), "roofline": round(ms * 0.03, 3)},
                "missing": [],
                "measured_ms": None,
                "measured_low_ms": None,
                "measured_high_ms": None,
                "quick_accuracy": round(quick, 4),
                "quick_low": round(quick - 0.02, 4),
                "quick_high": round(min(quick + 0.015, 1.0), 4),
                "validation_accuracy": None,
                "test_accuracy": None,
                "verdict": "feasible" if feasible else "infeasible",
                "reason": "meets the deadline, but others are more accurate"
                if feasible
                else f"predicted {ms - DEADLINE_MS:.2f} ms over the deadline",
            }
        )
    measured = {9: (4.52, 0.9778, 0.9722), 10: (4.81, 0.9833, 0.9806), 11: (5.38, 0.9861, 0.9778)}
    for index, (ms, validation, test) in measured.items():
        candidates[index] |= {
            "measured_ms": ms,
            "measured_low_ms": round(ms * 0.993, 3),
            "measured_high_ms": round(ms * 1.012, 3),
            "validation_accuracy": validation,
            "test_accuracy": test,
        }
    candidates[10] |= {"verdict": "chosen", "reason": "highest validation accuracy of all that measured within 5.26 ms"}
    candidates[11] |= {"verdict": "infeasible", "reason": "predicted to fit, measured 0.12 ms over the deadline"}
    nothing = {"predicted_ms": None, "low_ms": None, "high_ms": None, "provenance": {}}
    missing = ["opaque:einsum|1x320x3x3->1x1280|float32"]
    candidates[17] |= {**nothing, "verdict": "unknown", "missing": missing, "reason": ""}
    return candidates


def _kernels(draw: random.Random) -> list[dict[str, Any]]:
    specs = [("_conv_stem", "conv2d", 0.34, 5_200_000)]
    for block in range(16):
        if block:
            specs.append((f"_blocks.{block}._expand_conv", "pointwise_conv2d", 0.21 + 0.01 * block, 3_600_000))
        specs.append((f"_blocks.{block}._depthwise_conv", "depthwise_conv2d", 0.16, 900_000))
        specs.append((f"_blocks.{block}._project_conv", "pointwise_conv2d", 0.15 + 0.008 * block, 3_100_000))
    specs += [
        ("_conv_head", "pointwise_conv2d", 0.74, 14_800_000),
        ("_avg_pooling", "reduce", 0.02, 11_520),
        ("_fc", "matmul", 0.09, 2_560_000),
    ]
    return [
        {
            "key": f"{kind}+add+clip|1x{index + 16}x14x14->1x{index + 24}x14x14|float32",
            "name": f"fused_{kind}_add_clip{index}",
            "origin": [name],
            "ops": [kind, "add", "clip"],
            "kind": kind,
            "predicted_ms": round(ms * draw.uniform(0.85, 1.2), 4),
            "measured_ms": None if index == 30 else round(ms * draw.uniform(0.7, 1.4), 4),
            "flops": flops,
            "bytes": 1_000_000,
            "in_chosen": index < 30,
        }
        for index, (name, kind, ms, flops) in enumerate(specs)
    ]


def _graph() -> tuple[list[dict[str, Any]], list[list[int]]]:
    nodes: list[dict[str, Any]] = []
    edges: list[list[int]] = []

    def node(name: str, module: str, op: str, *sources: int, shape: list[int], flops: int, kept: bool) -> int:
        nodes.append({"name": name, "module": module, "op": op, "shape": shape, "flops": flops, "kept": kept})
        nodes[-1]["frontier"] = None
        edges.extend([source, len(nodes) - 1] for source in sources)
        return len(nodes) - 1

    last = node("x", "", "placeholder", shape=[1, 3, 96, 96], flops=0, kept=True)
    for name, op in (("_conv_stem", "conv2d"), ("_bn0", "batch_norm"), ("_swish", "clip")):
        flops = 4_000_000 if op == "conv2d" else 0
        last = node(name, "", op, last, shape=[1, 32, 48, 48], flops=flops, kept=True)
    nodes[last]["frontier"] = "_conv_stem … _swish"
    block = 0
    for repeats, channels, side in _STAGES:
        for repeat in range(repeats):
            path, start = f"_blocks.{block}", last
            kept = block <= 9
            shape = [1, channels, side * 96 // 224, side * 96 // 224]
            steps = [] if block == 0 else [("_expand_conv", "conv2d"), ("_bn0", "batch_norm"), ("_relu", "clip")]
            steps += [("_depthwise_conv", "conv2d"), ("_bn1", "batch_norm"), ("_relu#2", "clip")]
            steps += [("_project_conv", "conv2d"), ("_bn2", "batch_norm")]
            for leaf, op in steps:
                flops = 300_000 * (block + 3) if op == "conv2d" else 0
                last = node(f"{path}.{leaf}", path, op, last, shape=shape, flops=flops, kept=kept)
            if repeat:
                last = node(f"{path}.add", path, "add", last, start, shape=shape, flops=30_000, kept=kept)
            nodes[last]["frontier"] = path
            block += 1
    for name, op in (("_conv_head", "conv2d"), ("_bn1", "batch_norm"), ("_swish#2", "clip")):
        flops = 7_400_000 if op == "conv2d" else 0
        last = node(name, "", op, last, shape=[1, 1280, 3, 3], flops=flops, kept=False)
    nodes[last]["frontier"] = "_conv_head … _swish#2"
    for name, op in (("_avg_pooling", "adaptive_avg_pool2d"), ("flatten", "flatten"), ("_fc", "linear")):
        shape = [1, 1000] if op == "linear" else [1, 1280]
        flops = 2_560_000 if op == "linear" else 11_520
        last = node(name, "", op, last, shape=shape, flops=flops, kept=False)
    node("output", "", "output", last, shape=[1, 1000], flops=0, kept=False)
    return nodes, edges
