"""Passes by name, and pipelines as text: ``fold-batch-norm,cut{at=features.14},head{classes=10}``.

Other packages add passes through the entry point group ``netcut_fx.passes``. Listing names imports no pass.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from netcut_fx.errors import PassError
from netcut_fx.passes.option_text import format_option, parse_option, read_steps

if TYPE_CHECKING:
    from netcut_fx.passes.base import Pass, Pipeline

Loader = Callable[[], "type[Pass]"]

ENTRY_POINT_GROUP = "netcut_fx.passes"

_OWN = {
    "cut": "cut:CutPass",
    "dead-code": "dead_code:DeadCode",
    "fold-batch-norm": "fold_batch_norm:FoldBatchNorm",
    "gate": "gate:GatePass",
    "head": "head:HeadPass",
    "simplify": "simplify:Simplify",
}


def registered_passes() -> dict[str, Loader]:
    """A loader for each pass, ours and those of installed packages, sorted by name.

    Raises
    ------
    PassError
        If two packages claim one name.
    """
    loaders: dict[str, Loader] = {name: _own_loader(place) for name, place in _OWN.items()}
    places = {name: f"netcut_fx.passes.{place}" for name, place in _OWN.items()}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if places.setdefault(entry.name, entry.value) != entry.value:
            raise PassError(
                f"two passes are called {entry.name!r}: {places[entry.name]} and {entry.value}; "
                "uninstall one of the packages"
            )
        if entry.name not in loaders:
            loaders[entry.name] = entry.load
    return dict(sorted(loaders.items()))


def load_pass(name: str) -> type[Pass]:
    """The class of the pass called `name`; `PassError` with the nearest names if there is none."""
    loaders = registered_passes()
    if name not in loaders:
        raise PassError(f"there is no pass {name!r}{_hint(name, loaders)}; passes: {', '.join(loaders)}")
    from netcut_fx.passes.base import Pass

    try:
        loaded: Any = loaders[name]()
    except (ImportError, AttributeError) as error:
        raise PassError(
            f"pass {name!r} cannot be loaded: {error}; repair or uninstall the package it is from"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Pass) and dataclasses.is_dataclass(loaded)):
        raise PassError(f"pass {name!r} is {loaded!r}, not a dataclass derived from netcut_fx.passes.Pass")
    return loaded


def parse_pipeline(text: str) -> Pipeline:
    """Read a pipeline.

    Parameters
    ----------
    text : str
        Passes separated by commas, each ``name`` or ``name{option=value,...}``. Values are converted to the type of
        the option: ``true``/``false``, numbers, text (quoted with ``"`` if it holds ``,`` ``{`` ``}`` or quotes),
        and for several numbers ``256x128`` or ``(256,128)``.

    Raises
    ------
    PassError
        One line naming the pass, the option and what would be possible.
    """
    from netcut_fx.passes.base import Pipeline

    return Pipeline(tuple(_build(load_pass(name), name, options) for name, options in read_steps(text)))


def format_pipeline(pipeline: Pipeline) -> str:
    """The text that `parse_pipeline` reads back to an equal pipeline; options at their defaults are left out."""
    return ",".join(format_pass(rewrite) for rewrite in pipeline.passes)


def format_pass(rewrite: Pass) -> str:
    """One pass as in a pipeline's text."""
    options = [
        f"{field.name}={format_option(getattr(rewrite, field.name))}"
        for field in dataclasses.fields(rewrite)
        if field.init and getattr(rewrite, field.name) != _default(field)
    ]
    return f"{rewrite.name}{{{','.join(options)}}}" if options else rewrite.name


def _build(kind: type[Pass], name: str, options: Iterable[tuple[str, str]]) -> Pass:
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    types = _field_types(kind)
    values: dict[str, Any] = {}
    known = f"options: {', '.join(fields)}" if fields else "it has none"
    for option, text in options:
        if option not in fields:
            raise PassError(f"pass {name!r} has no option {option!r}{_hint(option, fields)}; {known}")
        if option in values:
            raise PassError(f"pass {name!r} is given option {option!r} twice; keep one")
        values[option] = parse_option(text, types[option], f"option {option!r} of pass {name!r}")
    missing = [f for f, field in fields.items() if f not in values and _default(field) is dataclasses.MISSING]
    if missing:
        raise PassError(f"pass {name!r} needs option {missing[0]!r}, as in {name}{{{missing[0]}=...}}; {known}")
    return kind(**values)


def _field_types(kind: type[Pass]) -> dict[str, Any]:
    from typing import get_type_hints

    return get_type_hints(kind)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _own_loader(place: str) -> Loader:
    module, _, attribute = place.partition(":")
    return lambda: getattr(import_module(f"netcut_fx.passes.{module}"), attribute)


def _hint(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
