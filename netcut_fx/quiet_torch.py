"""Torch's exporters without their chatter: what fails is raised, and told by whoever asked."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr

_LOGGERS = (
    *("torch.fx.experimental.symbolic_shapes", "torch.export", "torch._export", "torch.onnx"),
    *("onnxscript", "onnx_ir"),
)


@contextmanager
def quiet_torch() -> Generator[None]:
    """While this holds, torch's exporters neither warn nor log nor print the graph of a failure."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
