"""A made-up processor whose true costs are known, and kernels and networks that run on it."""

from __future__ import annotations

import math

import numpy as np

from cost_models import Calibration, Kernel, KernelSample, Machine, NetworkSample

MACHINE = Machine(lanes=8, cache_bytes=(32 * 1024, 1024 * 1024, 16 * 1024 * 1024))
RATES = {"conv2d": 6e7, "pointwise_conv2d": 5e7, "depthwise_conv2d": 1.5e7, "matmul": 4e7}
OVERHEAD_MS = 0.002


def convolution(kind: str, size: int, channels_in: int, channels: int, window: int = 3) -> Kernel:
    """A convolution that keeps height and width, with bias and activation."""
    inner = 1 if kind == "depthwise_conv2d" else channels_in
    channels_in = channels if kind == "depthwise_conv2d" else channels_in
    window = 1 if kind == "pointwise_conv2d" else window
    before, weight, after = (1, channels_in, size, size), (channels, inner, window, window), (1, channels, size, size)
    out = math.prod(after)
    moved = 4 * (math.prod(before) + math.prod(weight) + out + channels)
    shapes = (before, weight, (1, channels, 1, 1))
    return Kernel(
        kind, ("conv2d", "add", "clip"), shapes, (after,), "float32", out * (2 * inner * window**2 + 3), moved
    )


def product(rows: int, columns: int, inner: int) -> Kernel:
    """A matrix product with a weight."""
    shapes, out = ((rows, inner), (inner, columns), (columns,)), (rows, columns)
    moved = 4 * (sum(math.prod(s) for s in shapes) + rows * columns)
    return Kernel("matmul", ("matmul", "add"), shapes, (out,), "float32", rows * columns * (2 * inner + 1), moved)


def elementwise(size: int, channels: int) -> Kernel:
    """An activation on its own."""
    shape = (1, channels, size, size)
    out = math.prod(shape)
    return Kernel("elementwise", ("relu",), (shape,), (shape,), "float32", out, 8 * out)


def opaque() -> Kernel:
    """What no model covers."""
    return Kernel("opaque:resize", ("opaque:resize",), ((1, 3, 8, 8),), ((1, 3, 16, 16),), "float32", 768, 3840)


def true_ms(kernel: Kernel) -> float:
    """What `kernel` takes."""
    channels = kernel.output_shapes[0][1]
    tail = math.ceil(channels / MACHINE.lanes) * MACHINE.lanes / channels
    compute = kernel.flops * tail / RATES.get(kernel.kind, 1e7)
    bandwidth = 6e7 if kernel.bytes < 2**20 else 2e7 if kernel.bytes < 2**24 else 8e6
    return OVERHEAD_MS + max(compute, kernel.bytes / bandwidth)


def random_kernel(generator: np.random.Generator) -> Kernel:
    """A kernel as image networks have them."""
    size = int(generator.choice([7, 14, 28, 56]))
    channels_in, channels = (_channels(generator) for _ in range(2))
    kind = str(generator.choice([*RATES, "elementwise"]))
    if kind == "matmul":
        return product(size * size, channels, channels_in)
    return elementwise(size, channels) if kind == "elementwise" else convolution(kind, size, channels_in, channels)


def _channels(generator: np.random.Generator) -> int:
    """Mostly whole vectors."""
    drawn = int(2 ** generator.uniform(3, 8.5))
    return drawn if drawn < 16 or generator.random() < 1 / 3 else drawn // 16 * 16


def network(seed: int, calls: int = 40) -> tuple[Kernel, ...]:
    """Kernels of a network."""
    generator = np.random.default_rng(seed)
    return tuple(random_kernel(generator) for _ in range(calls))


def calibration(networks: int = 12, noise: float = 0.05, drift: float = 0.02, seed: int = 0) -> Calibration:
    """Networks profiled and measured, each a group of its own, with errors of that size."""
    generator = np.random.default_rng(seed)
    samples: dict[str, KernelSample] = {}
    wholes: list[NetworkSample] = []
    for i in range(networks):
        kernels, group = network(1000 * seed + i), f"net{i}"
        for kernel in kernels:
            ms = true_ms(kernel) * math.exp(generator.normal(0, noise))
            samples.setdefault(kernel.key, KernelSample(kernel, ms, 0.97 * ms, 1.03 * ms, 50, group))
        ms = sum(map(true_ms, kernels)) * math.exp(generator.normal(0, drift))
        wholes.append(NetworkSample(group, group, kernels, ms, 0.99 * ms, 1.01 * ms, "made up"))
    return Calibration("f" * 64, tuple(samples.values()), 0.0, MACHINE, tuple(wholes))
