"""What a result file says about where its figures were taken."""

from __future__ import annotations

import os
import platform
from typing import Any

from netcut_fx.host import detect_host
from netcut_fx.target import installed_versions


def machine() -> dict[str, Any]:
    """CPU, cores, load and versions, as JSON."""
    host = detect_host()
    return {
        "cpu": host.cpu_model,
        "arch": host.arch,
        "cores": host.cores,
        "load_average_1min": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": dict(installed_versions()),
    }
