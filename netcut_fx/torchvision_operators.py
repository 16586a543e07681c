"""Let torchvision's network definitions be imported where its compiled operators do not load.

torchvision's wheel for one build of torch does not load its operators beside another (the usual case for CPU builds);
``import torchvision`` then fails with "operator torchvision::nms does not exist", although classification networks use
none of them. Declaring the names is enough for the definitions. Whoever calls such an operator still gets an error.
"""

from __future__ import annotations

import sys

import torch

_FORWARD = ("nms", "qnms", "roi_align", "qroi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")

#: A library's declarations live as long as this object.
_declared: list[torch.library.Library] = []


def is_missing_operator(error: BaseException) -> bool:
    """Whether an import failed for want of torchvision's compiled operators."""
    return isinstance(error, RuntimeError) and "operator torchvision::" in str(error)


def declare_missing_operators() -> None:
    """Declare the operators that are not there and forget half-imported modules: the import can be retried."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for forward in _FORWARD:
        for name in (forward, f"_{forward}_backward"):
            if not hasattr(torch.ops.torchvision, name):
                library.define(f"{name}(Tensor x) -> Tensor")  # pyright: ignore[reportUnknownMemberType]
    _declared.append(library)
    for name in [n for n in sys.modules if n.split(".", 1)[0] == "torchvision"]:
        del sys.modules[name]
