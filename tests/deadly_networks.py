"""Networks that kill the process that loads them, as a network does that needs more memory than there is."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from torch import nn

from tests.zoo import PlainChain


def dies_once(flag: str) -> nn.Module:
    """Kill the first process that asks; `flag` is a file that remembers it."""
    if not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return PlainChain()


def dies() -> nn.Module:
    """Kill every process that asks."""
    os.kill(os.getpid(), signal.SIGKILL)
    return PlainChain()
