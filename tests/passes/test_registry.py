"""Passes by name, and pipelines as text."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcut_fx.errors import PassError
from netcut_fx.graph import TracedModule
from netcut_fx.passes import CutPass, FoldBatchNorm, HeadPass, Pass, Pipeline, copy_traced, registry
from netcut_fx.passes.registry import format_pass, format_pipeline, load_pass, parse_pipeline, registered_passes


@dataclass(frozen=True)
class Many(Pass):
    """An option of each type."""

    ratio: float = 0.5
    exact: bool = False
    widths: tuple[int, ...] = (1, 2)
    mode: Literal["fast", "good"] = "fast"
    label: str | None = None
    table: dict[str, int] | None = None
    name: ClassVar[str] = "many"

    def call(self, traced: TracedModule) -> TracedModule:
        return copy_traced(traced)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Many`, as another package would register it."""
    register(monkeypatch, EntryPoint("many", "tests.passes.test_registry:Many", registry.ENTRY_POINT_GROUP))


def register(monkeypatch: pytest.MonkeyPatch, *entries: EntryPoint) -> None:
    def found(*, group: str) -> tuple[EntryPoint, ...]:
        return tuple(entry for entry in entries if entry.group == group)

    monkeypatch.setattr(registry, "entry_points", found)


def test_listing_imports_no_pass() -> None:
    code = (
        "import sys; from netcut_fx.passes.registry import registered_passes; names = list(registered_passes()); "
        "assert not {'torch', 'tvm', 'netcut_fx.passes.cut'} & set(sys.modules); print(names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'cut', 'dead-code', 'fold-batch-norm', 'gate', 'head'" in done.stdout


@pytest.mark.parametrize("name", ["cut", "dead-code", "fold-batch-norm", "gate", "head", "simplify"])
def test_every_registered_pass_loads_under_its_own_name(name: str) -> None:
    assert load_pass(name).name == name
    assert name in registered_passes()


def test_the_example_of_the_documentation() -> None:
    pipeline = parse_pipeline("fold-batch-norm,cut{at=features.14},head{classes=10}")
    assert pipeline == Pipeline((FoldBatchNorm(), CutPass(at="features.14"), HeadPass(classes=10)))
    assert format_pipeline(pipeline) == "fold-batch-norm,cut{at=features.14},head{classes=10}"


@pytest.mark.parametrize("text", ["256x64", "(256,64)", "( 256 , 64 )", "[256,64]"])
def test_several_numbers(text: str) -> None:
    head = parse_pipeline(f" head{{ classes = 10 , hidden={text}, kind=linear, seed=3 }} ").passes[0]
    assert head == HeadPass(classes=10, hidden=(256, 64), kind="linear", seed=3)
    assert format_pass(head) == "head{classes=10,kind=linear,hidden=256x64,seed=3}"


@pytest.mark.usefixtures("many")
def test_a_pass_of_another_package() -> None:
    parsed = parse_pipeline('many{ratio=1e-3,exact=true,widths=3,mode=good,label="a,b}"}').passes[0]
    assert parsed == Many(0.001, True, (3,), "good", "a,b}")
    assert parse_pipeline(format_pass(parsed)).passes == (parsed,)
    assert parse_pipeline("many{label=none,widths=()}").passes[0] == Many(widths=())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the pipeline is empty; give passes such as fold-batch-norm,simplify,dead-code"),
        (
            "fold-batchnorm",
            "there is no pass 'fold-batchnorm' (did you mean 'fold-batch-norm'?); "
            "passes: cut, dead-code, fold-batch-norm, gate, head, many, simplify",
        ),
        ("zzz", "there is no pass 'zzz'; passes: cut, dead-code, fold-batch-norm, gate, head, many, simplify"),
        (
            "head{clases=3}",
            "pass 'head' has no option 'clases' (did you mean 'classes'?); options: classes, kind, hidden, seed, pool",
        ),
        ("dead-code{x=1}", "pass 'dead-code' has no option 'x'; it has none"),
        ("head{classes=ten}", "option 'classes' of pass 'head' cannot be 'ten'; give a whole number"),
        ("head{classes=1}", "head with classes=1 cannot classify; give at least 2 classes"),
        ("head{classes=3,classes=4}", "pass 'head' is given option 'classes' twice; keep one"),
        ("head{classes=3,hidden=5}", "option 'hidden' of pass 'head' cannot be '5'; give 2 values, as in 256x128"),
        (
            "head{classes=3,hidden=0x5}",
            "head with hidden=(0, 5) is not possible; give two positive widths such as 256x128",
        ),
        ("head{classes=3,kind=big}", "option 'kind' of pass 'head' cannot be 'big'; use one of netcut, linear, none"),
        ("cut", "pass 'cut' needs option 'at', as in cut{at=...}; options: at"),
        ("cut{at}", "'at' is no option of pass 'cut'; write cut{option=value}"),
        ("cut{at=x", "a closing '}' is missing in the pipeline 'cut{at=x'"),
        ('cut{at="x}', "a closing '\"' is missing in the pipeline 'cut{at=\"x}'"),
        ("cut}", "unexpected '}' at character 4 of 'cut}'; balance the brackets"),
        ("cut{at=x}y", "text follows the options of pass 'cut' in the pipeline 'cut{at=x}y'; put a comma after the }"),
        (
            "simplify,,cut{at=x}",
            "a pass has no name in the pipeline 'simplify,,cut{at=x}'; separate passes with single commas",
        ),
        ("many{ratio=nan}", "option 'ratio' of pass 'many' cannot be 'nan'; give a finite number"),
        ("many{exact=yes}", "option 'exact' of pass 'many' cannot be 'yes'; use true or false"),
        ("many{ratio=x}", "option 'ratio' of pass 'many' cannot be 'x'; give a number"),
    ],
)
@pytest.mark.usefixtures("many")
def test_what_cannot_be_read_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(PassError) as error:
        parse_pipeline(text)
    assert str(error.value) == message


@pytest.mark.usefixtures("many")
def test_an_option_that_has_no_text_form() -> None:
    with pytest.raises(
        PassError, match=r"option 'table' of pass 'many' cannot be given as text .*build the pass in Python"
    ):
        parse_pipeline("many{table=x}")


def test_two_packages_with_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, EntryPoint("cut", "elsewhere:Cut", registry.ENTRY_POINT_GROUP))
    with pytest.raises(
        PassError, match=r"two passes are called 'cut': netcut_fx\.passes\.cut:CutPass and elsewhere:Cut"
    ):
        registered_passes()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere_at_all:Cut", "pass 'broken' cannot be loaded: No module named 'nowhere_at_all'"),
        ("collections:OrderedDict", "not a dataclass derived from netcut_fx.passes.Pass"),
    ],
)
def test_a_broken_package(monkeypatch: pytest.MonkeyPatch, place: str, message: str) -> None:
    register(monkeypatch, EntryPoint("broken", place, registry.ENTRY_POINT_GROUP))
    with pytest.raises(PassError, match=message):
        parse_pipeline("broken")


@given(at=st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1), seed=st.integers())
def test_text_and_pipeline_go_round(at: str, seed: int) -> None:
    pipeline = Pipeline((CutPass(at=at), HeadPass(classes=7, hidden=(3, 4), seed=seed)))
    assert parse_pipeline(format_pipeline(pipeline)) == pipeline
