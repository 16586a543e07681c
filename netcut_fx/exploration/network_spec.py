"""Networks of an exploration as they are written on the command line: a SPEC, and what belongs to it alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netcut_fx.errors import SpecError
from netcut_fx.model_spec import recommended_normalize
from netcut_fx.preprocess import parse_normalisation
from netcut_fx.spec_text import did_you_mean

_FIELDS = ("name", "weights", "normalize")
# A normalisation may hold commas itself: only one before a word and '=' that is no number's begins a field.
_FIELD = re.compile(r",\s*(?=[A-Za-z_]+=)")


@dataclass(frozen=True)
class NetworkSpec:
    """One network to explore.

    Parameters
    ----------
    name : str
        What it is called in the report; unique.
    model : str
        SPEC, see `netcut_fx.model_spec.load_model`.
    weights : Path, optional
        Checkpoint.
    normalize : str
        Normalisation that its weights were trained with.
    """

    name: str
    model: str
    weights: Path | None = None
    normalize: str = "imagenet"

    @property
    def folder_name(self) -> str:
        """The name as part of a file name."""
        return file_name(self.name).strip("_.")[:60] or "network"


def file_name(name: str) -> str:
    """`name` with everything but letters, digits and ``.+-`` as underscores."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", name)


def parse_network(text: str, default_normalize: str | None = None) -> NetworkSpec:
    """Read ``SPEC[,name=NAME][,weights=FILE][,normalize=NORMALISATION]``.

    Raises
    ------
    SpecError
        If a field is unknown, empty or given twice, or the normalisation does not exist.
    """
    model, *parts = _FIELD.split(text.strip())
    fields: dict[str, str] = {}
    for part in parts:
        key, _, value = part.partition("=")
        if key not in _FIELDS:
            raise SpecError(f"network '{text}' has an unknown field '{key}'; {did_you_mean(key, _FIELDS)}")
        if key in fields or not value.strip():
            raise SpecError(f"network '{text}' has the field '{key}' {'twice' if key in fields else 'without a value'}")
        fields[key] = value.strip()
    if not model:
        raise SpecError(f"network '{text}' has no SPEC; write SPEC,name=NAME,weights=FILE")
    normalize = fields.get("normalize") or default_normalize or recommended_normalize(model) or "imagenet"
    parse_normalisation(normalize)
    weights = Path(fields["weights"]) if "weights" in fields else None
    return NetworkSpec(fields.get("name", model), model, weights, normalize)


def check_networks(networks: Sequence[NetworkSpec]) -> None:
    """Refuse no networks, and two of one name.

    Raises
    ------
    SpecError
        Naming the name.
    """
    if not networks:
        raise SpecError("there is no network to explore; give --models SPEC ...")
    for place, network in enumerate(networks):
        for other in networks[:place]:
            if network.name == other.name:
                raise SpecError(
                    f"two networks are called '{network.name}'; give one of them another name: SPEC,name=NAME"
                )
            if network.folder_name.lower() == other.folder_name.lower():
                raise SpecError(
                    f"the networks '{other.name}' and '{network.name}' would share the folder "
                    f"'{network.folder_name}'; give one of them another name: SPEC,name=NAME"
                )
