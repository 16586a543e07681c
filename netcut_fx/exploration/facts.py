"""What an exploration knows so far: cuts of all networks, what they are predicted to take, what was trained, timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from cost_models import LatencyEstimate
from netcut_fx.decision import Validated
from netcut_fx.evaluate import Accuracy
from netcut_fx.measure import Measurement

#: Network and cut.
Key = tuple[str, str]


@dataclass(frozen=True)
class Candidate:
    """One cut of one network; the uncut network is the deepest of its cuts.

    Parameters
    ----------
    network, cut : str
        Names.
    uncut : bool
        Whether nothing of the network but its classifier was removed.
    kept_flops, kept_params : float
        Of the trunk, without the head.
    quick : Accuracy
        Of a quick head on frozen features, on validation.
    """

    network: str
    cut: str
    uncut: bool
    kept_flops: float
    kept_params: float
    quick: Accuracy

    @property
    def key(self) -> Key:
        """Network and cut."""
        return self.network, self.cut


@dataclass(frozen=True)
class Trained:
    """What retraining a candidate yielded.

    Parameters
    ----------
    validation, test : Accuracy
        Top-1.
    validation_loss : float
        Cross-entropy.
    angular_similarity : float
        Of the answers on test with the distributions, or labels, asked for.
    seconds, cpu_seconds : float
        On the clock, and of the processor.
    """

    validation: Accuracy
    test: Accuracy
    validation_loss: float
    angular_similarity: float
    seconds: float
    cpu_seconds: float

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what the training task answered."""
        return cls(
            Accuracy.from_json(row["validation"]),
            Accuracy.from_json(row["test"]),
            *(float(row[k]) for k in ("validation_loss", "angular_similarity", "seconds", "cpu_seconds")),
        )


@dataclass(frozen=True)
class Failure:
    """A step that failed: of a whole network, or of one cut (else ``""``)."""

    network: str
    cut: str
    step: str
    message: str


@dataclass
class Facts:
    """Grows while an exploration runs. Candidates of a network stand shallow to deep."""

    candidates: dict[Key, Candidate] = field(default_factory=dict[Key, Candidate])
    estimates: dict[Key, LatencyEstimate] = field(default_factory=dict[Key, LatencyEstimate])
    trained: dict[Key, Trained] = field(default_factory=dict[Key, Trained])
    measured: dict[Key, Measurement] = field(default_factory=dict[Key, Measurement])
    failures: list[Failure] = field(default_factory=list[Failure])

    def usable(self) -> list[Candidate]:
        """Candidates of which no step failed."""
        networks = {f.network for f in self.failures if not f.cut}
        cuts = {(f.network, f.cut) for f in self.failures if f.cut}
        return [c for c in self.candidates.values() if c.network not in networks and c.key not in cuts]

    def potential(self, candidate: Candidate) -> float:
        """The best quick accuracy in the trunk of `candidate`: at its own cut, or at an earlier one of the network.

        Frozen features of the last layers are those of the old task, and quick heads on them fall behind heads on
        earlier ones. Retraining mends that: it starts from a trunk in which the better features are, too.
        """
        best = 0.0
        for other in self.candidates.values():
            if other.network == candidate.network:
                best = max(best, other.quick.value)
                if other.key == candidate.key:
                    break
        return best

    def validated(self, key: Key) -> Validated:
        """A trained and measured candidate, to be ranked."""
        trained = self.trained[key]
        return Validated(trained.validation, trained.validation_loss, self.measured[key].ms)
