"""Whether a kernel is like those that were measured: a box around them for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cost_models.features import Array, KernelFacts, log_features


@dataclass(frozen=True)
class Hull:
    """Ranges of `features.LOG_FEATURES` for each kind of measured kernel."""

    boxes: dict[str, tuple[Array, Array]]

    @classmethod
    def of(cls, facts: Sequence[KernelFacts]) -> Hull:
        """Around `facts`."""
        rows = log_features(facts)
        boxes: dict[str, tuple[Array, Array]] = {}
        for kind in {f.kind for f in facts}:
            own = rows[[f.kind == kind for f in facts]]
            boxes[kind] = own.min(axis=0), own.max(axis=0)
        return cls(boxes)

    def distances(self, facts: Sequence[KernelFacts]) -> Array:
        """How far outside its box each kernel is at worst, in factors of two; 0 inside, infinite for an unseen kind."""
        rows, found = log_features(facts), np.full(len(facts), np.inf)
        for i, fact in enumerate(facts):
            if fact.kind in self.boxes:
                low, high = self.boxes[fact.kind]
                found[i] = max(0.0, float(np.max(np.maximum(low - rows[i], rows[i] - high))))
        return found
