from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from netcut_fx.errors import SpecError, TargetMismatch
from netcut_fx.host import ISA_FEATURES, Host, detect_host, isa_features, read_cpuinfo
from netcut_fx.target import Target, check_runs_here, detect, installed_versions, parse_target_spec

ZEN4 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9354 32-Core Processor
stepping\t: 1
flags\t\t: fpu pni ssse3 fma sse4_1 sse4_2 popcnt avx f16c bmi1 avx2 bmi2 avx512f avx512_vnni avx512_bf16 lm

processor\t: 1
model name\t: another one
flags\t\t: fpu
"""

NEOVERSE = """\
processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
"""

HOST = Host("x86_64", "AMD EPYC 9354 (family 25, model 17, stepping 1)", ("avx", "avx2", "fma"), 4)
TARGET = Target(
    "llvm", "znver4", "x86_64", HOST.cpu_model, ("avx2", "fma"), 2, (("llvm", "22"), ("apache-tvm", "0.27"))
)


def test_cpuinfo_of_x86():
    host = read_cpuinfo(ZEN4, arch="x86_64", cores=2)
    assert host.cpu_model == "AMD EPYC 9354 32-Core Processor (family 25, model 17, stepping 1)"
    assert host.features == (
        *("avx", "avx2", "avx512_bf16", "avx512_vnni", "avx512f", "bmi1", "bmi2", "f16c", "fma", "popcnt"),
        *("sse3", "sse4_1", "sse4_2", "ssse3"),
    )
    assert (host.arch, host.cores, host.system) == ("x86_64", 2, "Linux")


def test_cpuinfo_of_arm():
    host = read_cpuinfo(NEOVERSE, arch="aarch64", cores=1)
    assert host.cpu_model.endswith("(implementer 0x41, part 0xd40, variant 0x1)")
    assert host.features == ("asimd", "asimddp", "asimdhp", "bf16", "fphp", "i8mm", "sve")


def test_without_cpuinfo_the_features_are_unknown_and_the_model_has_a_name():
    host = read_cpuinfo("", arch="riscv64", cores=8, system="Darwin")
    assert host.features == ()
    assert host.cpu_model
    assert host.system == "Darwin"


def test_this_machine():
    host = detect_host()
    assert host == detect_host()
    assert host.cores >= 1
    assert host.arch == host.arch.lower()
    assert set(host.features) <= set(ISA_FEATURES)
    assert list(host.features) == sorted(host.features)


def test_llvm_and_linux_spell_features_differently():
    llvm = ["+sse4.2", "avx512vnni", "amx-tile", "avxvnni", "neon", "dotprod", "bmi", "fast-hops", "fma4"]
    assert isa_features(llvm) == ("amx_tile", "asimd", "asimddp", "avx512_vnni", "avx_vnni", "bmi1", "sse4_2")
    assert isa_features(ISA_FEATURES) == tuple(sorted(ISA_FEATURES))


def test_equal_targets_have_equal_fingerprints():
    same = replace(TARGET, features=("fma", "avx2", "fma"), toolchain=tuple(reversed(TARGET.toolchain)))
    assert same == TARGET
    assert same.fingerprint() == TARGET.fingerprint()
    assert len(TARGET.fingerprint()) == 64
    assert int(TARGET.fingerprint(), 16) >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "cuda"},
        {"mcpu": "znver3"},
        {"arch": "aarch64"},
        {"cpu_model": "x"},
        {"features": ("avx2",)},
        {"threads": 1},
        {"toolchain": (("llvm", "21"), ("apache-tvm", "0.27"))},
        {"system": "Darwin"},
    ],
)
def test_every_field_is_in_the_fingerprint(change: dict):
    other = replace(TARGET, **change)
    assert other.fingerprint() != TARGET.fingerprint()
    assert set(change) <= set(TARGET.fingerprint_fields)


def test_fingerprint_is_the_same_in_another_process():
    code = (
        "import json,sys; from netcut_fx.target import Target;"
        "print(Target.from_json(json.loads(sys.argv[1])).fingerprint());"
        "print(*sorted({'torch','tvm','numpy'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, json.dumps(TARGET.to_json())], capture_output=True, text=True, check=True
    )
    fingerprint, heavy = run.stdout.split("\n")[:2]
    assert fingerprint == TARGET.fingerprint()
    assert heavy == ""


def test_json_round_trip():
    assert Target.from_json(json.loads(json.dumps(TARGET.to_json()))) == TARGET


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("arch", None, "field 'arch' of the target is None, expected str"),
        ("threads", "2", "field 'threads' of the target is '2', expected int"),
        ("threads", True, "field 'threads' of the target is True, expected int"),
        ("threads", 0, "a target needs at least 1 thread, got 0; give --threads 1 or more"),
        ("features", "avx", "field 'features' of the target is 'avx', expected list"),
        ("features", [1], "field 'features' of the target holds something that is no text: [1]"),
        ("toolchain", {"tvm": 1}, "field 'toolchain' of the target holds something that is no text: [1]"),
    ],
)
def test_json_of_the_wrong_type(field: str, value: object, message: str):
    with pytest.raises(SpecError) as error:
        Target.from_json({**TARGET.to_json(), field: value})
    assert str(error.value) == message


@pytest.mark.parametrize("field", sorted(TARGET.to_json()))
def test_json_without_a_field(field: str):
    data = TARGET.to_json()
    del data[field]
    with pytest.raises(SpecError, match=f"^the target lacks the field '{field}'$"):
        Target.from_json(data)


@pytest.mark.parametrize(
    ("spec", "kind", "options"),
    [
        ("native", "llvm", {}),
        ("llvm", "llvm", {}),
        ("llvm -mcpu=native", "llvm", {}),
        ("llvm -mcpu=znver4", "llvm", {"mcpu": "znver4"}),
        ("  llvm   --mcpu=skylake-avx512 ", "llvm", {"mcpu": "skylake-avx512"}),
        ("cuda", "cuda", {}),
        ("cuda -arch=sm_90", "cuda", {"arch": "sm_90"}),
    ],
)
def test_target_specs(spec: str, kind: str, options: dict):
    assert parse_target_spec(spec) == (kind, options)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "the target is empty; write native, 'llvm -mcpu=NAME' or cuda"),
        ("llmv", "there is no target 'llmv'; did you mean 'llvm'?"),
        ("tpu", "there is no target 'tpu'; there is: cuda, llvm, native"),
        ("llvm -mcup=znver4", "target llvm has no option '-mcup=znver4'; did you mean 'mcpu'?"),
        ("llvm mcpu=znver4", "target llvm has no option 'mcpu=znver4'; did you mean 'mcpu'?"),
        ("llvm -mcpu", "option -mcpu in target 'llvm -mcpu' needs exactly one value; write -mcpu=NAME once"),
        (
            "llvm -mcpu=a -mcpu=b",
            "option -mcpu in target 'llvm -mcpu=a -mcpu=b' needs exactly one value; write -mcpu=NAME once",
        ),
        ("llvm -num-cores=2", "target 'llvm -num-cores=2' sets num-cores; give the number of threads with --threads"),
        (
            "llvm -mcpu=znver4 -mattr=+avx2,+fma",
            "target 'llvm -mcpu=znver4 -mattr=+avx2,+fma' sets mattr, but which instruction sets the code uses follows "
            "from the CPU; name one that has just these with -mcpu=NAME",
        ),
        ("cuda -mattr=+x", "target cuda has no option '-mattr=+x'; there is: arch"),
        ("llvm 'x", "cannot read target 'llvm 'x' (No closing quotation); write for instance 'llvm -mcpu=znver4'"),
    ],
)
def test_bad_target_specs(spec: str, message: str):
    with pytest.raises(SpecError) as error:
        parse_target_spec(spec)
    assert str(error.value) == message


def test_detect_takes_this_machine():
    host, target = detect_host(), detect("native", 1, mcpu="znver4", toolchain=(("llvm", "22"),))
    assert target == Target(
        "llvm", "znver4", host.arch, host.cpu_model, host.features, 1, (("llvm", "22"),), host.system
    )
    assert detect("llvm -mcpu=znver3", 1, mcpu="znver4").mcpu == "znver3"
    assert detect("cuda -arch=sm_90", 1).mcpu == "sm_90"
    check_runs_here(target)


def test_code_for_a_named_cpu_asks_for_what_that_cpu_has():
    old = detect("llvm -mcpu=nehalem", 1, features=["sse4.2", "popcnt", "64bit", "fast-hops", "sse4.2"])
    assert (old.mcpu, old.features) == ("nehalem", ("popcnt", "sse4_2"))
    small = replace(detect_host(), features=old.features)
    check_runs_here(old, small)
    with pytest.raises(TargetMismatch, match=r"may use the CPU features avx, which this machine .* lacks"):
        check_runs_here(detect("llvm -mcpu=sandybridge", 1, features=["popcnt", "sse4.2", "avx"]), small)
    assert detect("llvm -mcpu=x86-64", 1, features=[]).features == ()
    assert detect("llvm -mcpu=nehalem", 1).features == detect_host().features
    assert detect("cuda", 1, features=["avx"]).features == ()


def test_versions_of_installed_packages():
    versions = dict(installed_versions(llvm="22"))
    assert versions["llvm"] == "22"
    assert all(isinstance(v, str) and v for v in versions.values())


def test_the_machine_it_was_made_on_is_welcome():
    check_runs_here(TARGET, HOST)
    check_runs_here(TARGET, replace(HOST, cores=2))
    check_runs_here(TARGET, replace(HOST, features=(*HOST.features, "avx512f")))


@pytest.mark.parametrize("strict", [True, False])
def test_missing_features_are_named_always(strict: bool):
    target = replace(TARGET, features=("avx2", "avx512f", "amx_tile"))
    with pytest.raises(TargetMismatch) as error:
        check_runs_here(target, HOST, strict=strict)
    assert str(error.value) == (
        "it may use the CPU features amx_tile, avx512f, which this machine (AMD EPYC 9354 (family 25, model 17, "
        "stepping 1)) lacks: it would crash; compile it again on this machine, or for the smaller of both with "
        "--target 'llvm -mcpu=NAME'"
    )


@pytest.mark.parametrize("strict", [True, False])
def test_another_architecture_or_system_never_runs(strict: bool):
    with pytest.raises(TargetMismatch) as error:
        check_runs_here(TARGET, replace(HOST, arch="aarch64"), strict=strict)
    assert str(error.value) == (
        "it was compiled for Linux on x86_64, this machine is Linux on aarch64; compile it again on this machine"
    )
    with pytest.raises(TargetMismatch, match="this machine is Darwin on x86_64"):
        check_runs_here(TARGET, replace(HOST, system="Darwin"), strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_unknown_features_are_not_taken_for_present(strict: bool):
    with pytest.raises(TargetMismatch, match=r"may use avx2, fma, and this machine \(.*\) does not tell which"):
        check_runs_here(TARGET, replace(HOST, features=()), strict=strict)
    check_runs_here(replace(TARGET, features=()), replace(HOST, features=()))


def test_another_cpu_model_is_refused_unless_asked_for():
    other = replace(HOST, cpu_model="AMD EPYC 7742 (family 23, model 49, stepping 0)")
    with pytest.raises(TargetMismatch) as error:
        check_runs_here(TARGET, other)
    assert str(error.value) == (
        "it was tuned and measured on AMD EPYC 9354 (family 25, model 17, stepping 1), this machine is AMD EPYC 7742 "
        "(family 23, model 49, stepping 0): it runs, but its measured ms does not hold here; compile it again on this "
        "machine, or load it anyway with any_cpu=True (--any-cpu)"
    )
    check_runs_here(TARGET, other, strict=False)


def test_fewer_cores_than_threads_are_refused_unless_asked_for():
    with pytest.raises(TargetMismatch, match="measured with 2 threads, this process may use 1 core: its measured ms"):
        check_runs_here(TARGET, replace(HOST, cores=1))
    check_runs_here(TARGET, replace(HOST, cores=1), strict=False)


def test_a_target_prints_on_one_line():
    assert str(TARGET) == "llvm -mcpu=znver4, 2 threads, AMD EPYC 9354 (family 25, model 17, stepping 1)"
    assert "1 thread," in str(replace(TARGET, threads=1))


@pytest.mark.parametrize(
    ("arch", "features", "lanes"),
    [
        ("x86_64", ("avx2", "avx512f"), 16),
        ("x86_64", ("avx", "avx2"), 8),
        ("x86_64", (), 4),
        ("aarch64", ("asimd",), 4),
    ],
)
def test_lanes_of_a_vector_register(arch: str, features: tuple[str, ...], lanes: int) -> None:
    assert replace(TARGET, arch=arch, features=features).float32_lanes == lanes
