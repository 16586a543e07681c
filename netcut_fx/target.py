"""What an artefact was compiled for, its fingerprint, and whether it runs on this machine."""

from __future__ import annotations

import importlib.metadata
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

from netcut_fx.canonical_json import canonical_sha256
from netcut_fx.errors import SpecError, TargetMismatch
from netcut_fx.host import Host, detect_host, isa_features
from netcut_fx.spec_text import did_you_mean

__all__ = [
    "Host",
    "Target",
    "check_runs_here",
    "detect",
    "detect_host",
    "installed_versions",
    "parse_target_spec",
]

#: Options that each kind of target understands.
_OPTIONS: Mapping[str, tuple[str, ...]] = {"llvm": ("mcpu",), "cuda": ("arch",)}

_T = TypeVar("_T")

_PACKAGES = ("apache-tvm", "apache-tvm-ffi", "torch", "netcut-fx")


@dataclass(frozen=True)
class Target:
    """What code was generated and measured for.

    Parameters
    ----------
    kind : str
        ``"llvm"`` (CPU) or ``"cuda"``.
    mcpu : str
        The compiler's name of the CPU (``"znver4"``) or GPU (``"sm_90"``); ``""`` for the plain architecture.
    arch : str
        Architecture of the machine it runs on: ``"x86_64"``, ``"aarch64"``.
    cpu_model : str
        `Host.cpu_model` of the machine that it was tuned and measured on.
    features : tuple of str
        Instruction sets that the code may use, in the words of `netcut_fx.host.ISA_FEATURES`.
    threads : int
        Threads it was tuned and measured with.
    toolchain : tuple of (str, str)
        Name and version of everything that decides which code comes out.
    system : str
        Operating system that can load the library.
    """

    kind: str
    mcpu: str
    arch: str
    cpu_model: str
    features: tuple[str, ...]
    threads: int
    toolchain: tuple[tuple[str, str], ...] = ()
    system: str = "Linux"

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise SpecError(f"a target needs at least 1 thread, got {self.threads}; give --threads 1 or more")
        object.__setattr__(self, "features", tuple(sorted(set(self.features))))
        object.__setattr__(self, "toolchain", tuple(sorted((str(n), str(v)) for n, v in self.toolchain)))

    @property
    def fingerprint_fields(self) -> dict[str, Any]:
        """Everything that `fingerprint` covers."""
        return self.to_json()

    def fingerprint(self) -> str:
        """SHA-256 of all fields, 64 hexadecimal digits: equal for equal targets, on every machine."""
        return canonical_sha256(self.fingerprint_fields)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it back to an equal value."""
        return {
            "kind": self.kind,
            "mcpu": self.mcpu,
            "arch": self.arch,
            "cpu_model": self.cpu_model,
            "features": list(self.features),
            "threads": self.threads,
            "toolchain": dict(self.toolchain),
            "system": self.system,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The value that `to_json` wrote. Raises `SpecError` naming a field that is missing or of the wrong type."""
        texts = [_field(data, name, str) for name in ("kind", "mcpu", "arch", "cpu_model")]
        features = cast("list[object]", _field(data, "features", list))
        toolchain = cast("dict[str, object]", _field(data, "toolchain", dict))
        for name, members in (("features", features), ("toolchain", list(toolchain.values()))):
            if not all(isinstance(member, str) for member in members):
                raise SpecError(f"field '{name}' of the target holds something that is no text: {members}")
        return cls(
            *texts,
            features=tuple(str(f) for f in features),
            threads=_field(data, "threads", int),
            toolchain=tuple((name, str(version)) for name, version in toolchain.items()),
            system=_field(data, "system", str),
        )

    @property
    def float32_lanes(self) -> int:
        """float32 elements of a vector register; the fewest of the architecture where the target does not say."""
        if self.arch in ("aarch64", "arm64"):
            return 4
        return 16 if "avx512f" in self.features else 8 if "avx2" in self.features else 4

    def __str__(self) -> str:
        cpu = f" -mcpu={self.mcpu}" if self.mcpu else ""
        return f"{self.kind}{cpu}, {self.threads} thread{'s' * (self.threads != 1)}, {self.cpu_model}"


def _field(data: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    if name not in data:
        raise SpecError(f"the target lacks the field '{name}'")
    value = data[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise SpecError(f"field '{name}' of the target is {value!r}, expected {kind.__name__}")
    return value


def installed_versions(**others: str) -> tuple[tuple[str, str], ...]:
    """(name, version) of the packages that decide which code comes out, and `others`; imports none of them."""
    versions = dict(others)
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(sorted(versions.items()))


def parse_target_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Read what the user writes after ``--target``.

    Parameters
    ----------
    spec : str
        ``native`` or ``llvm`` (the CPU of this machine), ``llvm -mcpu=znver4``, ``cuda``, ``cuda -arch=sm_90``.

    Returns
    -------
    kind : str
        ``"llvm"`` or ``"cuda"``.
    options : dict
        Option names without dashes; ``mcpu=native`` is left out, as no ``mcpu`` means the same.

    Raises
    ------
    SpecError
        For an unknown kind or option, an option without a value, or one given twice. ``-mattr`` is refused: a `Target`
        is tuned, named and checked by its CPU.
    """
    try:
        words = shlex.split(spec)
    except ValueError as error:
        raise SpecError(f"cannot read target '{spec}' ({error}); write for instance 'llvm -mcpu=znver4'") from error
    if not words:
        raise SpecError("the target is empty; write native, 'llvm -mcpu=NAME' or cuda")
    kind = "llvm" if words[0] == "native" else words[0]
    if kind not in _OPTIONS:
        raise SpecError(f"there is no target '{words[0]}'; {did_you_mean(words[0], (*_OPTIONS, 'native'))}")
    options: dict[str, str] = {}
    for word in words[1:]:
        name, _, value = word.lstrip("-").partition("=")
        if name in ("num-cores", "threads"):
            raise SpecError(f"target '{spec}' sets {name}; give the number of threads with --threads")
        if name == "mattr" and kind == "llvm":
            raise SpecError(
                f"target '{spec}' sets mattr, but which instruction sets the code uses follows from the CPU; name one "
                "that has just these with -mcpu=NAME"
            )
        if name not in _OPTIONS[kind] or not word.startswith("-"):
            raise SpecError(f"target {kind} has no option '{word}'; {did_you_mean(name, _OPTIONS[kind])}")
        if not value or name in options:
            raise SpecError(f"option -{name} in target '{spec}' needs exactly one value; write -{name}=NAME once")
        options[name] = value
    if options.get("mcpu") == "native":
        del options["mcpu"]
    return kind, options


def detect(
    spec: str = "native",
    threads: int = 1,
    *,
    mcpu: str = "",
    features: Iterable[str] | None = None,
    toolchain: tuple[tuple[str, str], ...] | None = None,
) -> Target:
    """The `Target` of a SPEC on this machine, without a compiler to ask.

    Parameters
    ----------
    spec : str
        See `parse_target_spec`.
    threads : int
        Threads that the artefact uses.
    mcpu : str
        The compiler's name of this machine's CPU, where the caller knows it and `spec` does not say.
    features : iterable of str, optional
        What the CPU that `spec` names has, as LLVM or Linux spells it, where the caller can ask a compiler; those in
        `netcut_fx.host.ISA_FEATURES` are kept. By default everything that this machine has, which is more than code
        for a named older CPU may use: then a doubtful artefact is refused rather than run. No effect for ``cuda``.
    toolchain : tuple, optional
        `installed_versions` by default.
    """
    kind, options = parse_target_spec(spec)
    host = detect_host()
    name = options.get("arch", "") if kind == "cuda" else options.get("mcpu", mcpu)
    offered = host.features if features is None else isa_features(features)
    versions = installed_versions() if toolchain is None else toolchain
    return Target(
        kind, name, host.arch, host.cpu_model, offered if kind == "llvm" else (), threads, versions, host.system
    )


def check_runs_here(target: Target, host: Host | None = None, *, strict: bool = True) -> None:
    """Refuse an artefact that would crash on `host`, and, if `strict`, one whose measured time does not hold there.

    Parameters
    ----------
    target : Target
        What the artefact was compiled for.
    host : Host, optional
        This machine by default.
    strict : bool
        Also ask for the CPU model that it was measured on, and for as many cores as it has threads.

    Raises
    ------
    TargetMismatch
        Naming what differs.
    """
    host = detect_host() if host is None else host
    compile_here = "compile it again on this machine"
    if (target.system, target.arch) != (host.system, host.arch):
        raise TargetMismatch(
            f"it was compiled for {target.system} on {target.arch}, this machine is {host.system} on {host.arch}; "
            f"{compile_here}"
        )
    if target.kind == "llvm" and target.features and not host.features:
        raise TargetMismatch(
            f"it may use {', '.join(target.features)}, and this machine ({host.cpu_model}) does not tell which of "
            f"these its CPU has; {compile_here}"
        )
    missing = sorted(set(target.features) - set(host.features))
    if missing:
        raise TargetMismatch(
            f"it may use the CPU features {', '.join(missing)}, which this machine ({host.cpu_model}) lacks: it would "
            f"crash; {compile_here}, or for the smaller of both with --target 'llvm -mcpu=NAME'"
        )
    if not strict:
        return
    anyway = f"{compile_here}, or load it anyway with any_cpu=True (--any-cpu)"
    if target.cpu_model != host.cpu_model:
        raise TargetMismatch(
            f"it was tuned and measured on {target.cpu_model}, this machine is {host.cpu_model}: it runs, but its "
            f"measured ms does not hold here; {anyway}"
        )
    if target.threads > host.cores:
        raise TargetMismatch(
            f"it was tuned and measured with {target.threads} threads, this process may use {host.cores} "
            f"core{'s' * (host.cores != 1)}: its measured ms does not hold here; {anyway}"
        )
