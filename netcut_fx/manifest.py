"""``manifest.json`` of a bundle: what the library is, what it reads and answers, and the hash of every file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, cast

from netcut_fx.errors import BadBundle, SpecError
from netcut_fx.preprocess import Preprocess
from netcut_fx.spec_text import did_you_mean
from netcut_fx.target import Target

#: The schema that this version writes, and the newest it reads.
SCHEMA_VERSION = 1

MANIFEST_FILE = "manifest.json"

_SEAL = "manifest_sha256"
_SEAL_TEXT = re.compile(rb'^(  "manifest_sha256": ")([^"]*)(")', re.MULTILINE)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FREE_FIELDS = ("head", "estimate", "measurement", "accuracy", "versions")

_T = TypeVar("_T")


def _nothing() -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    Parameters
    ----------
    name : str
        Of the network.
    target : Target
        What the library was compiled for.
    preprocess : Preprocess
        From an image to the network's input.
    labels : tuple of str
        Class names in the order of the logits.
    input_shape : tuple of int
        ``(batch, channels, height, width)``: the library computes so many images at a time.
    output_shape : tuple of int
        ``(batch, classes)``.
    frontier : str
        Where the network was cut; ``""`` for the uncut one.
    head, estimate, measurement, accuracy, versions : mapping
        JSON objects for people and reports; the runtime does not read them. An unknown number is None, never NaN.
    files : mapping
        File name to SHA-256 of its bytes; filled in by `netcut_fx.bundle.write_bundle`.
    created_by : str
        Program and version.
    """

    name: str
    target: Target
    preprocess: Preprocess
    labels: tuple[str, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    frontier: str = ""
    head: Mapping[str, Any] = field(default_factory=_nothing)
    estimate: Mapping[str, Any] = field(default_factory=_nothing)
    measurement: Mapping[str, Any] = field(default_factory=_nothing)
    accuracy: Mapping[str, Any] = field(default_factory=_nothing)
    versions: Mapping[str, Any] = field(default_factory=_nothing)
    files: Mapping[str, str] = field(default_factory=_nothing)
    created_by: str = "netcut_fx"

    def __post_init__(self) -> None:
        if len(self.input_shape) != 4 or min(self.input_shape) < 1:
            raise BadBundle(
                f"input_shape {self.input_shape} is not (batch, channels, height, width) in {MANIFEST_FILE}"
            )
        if len(self.output_shape) != 2 or self.output_shape[0] != self.input_shape[0]:
            raise BadBundle(
                f"output_shape {self.output_shape} is not ({self.input_shape[0]}, classes) in {MANIFEST_FILE}"
            )
        if self.preprocess.size != self.input_shape[2:]:
            raise BadBundle(
                f"preprocess makes images of {self.preprocess.size}, the network reads {self.input_shape[2:]}: "
                f"make both equal in {MANIFEST_FILE}"
            )
        if len(self.labels) != self.output_shape[1]:
            raise BadBundle(
                f"{len(self.labels)} labels for {self.output_shape[1]} classes in {MANIFEST_FILE}; give one per class"
            )

    @property
    def threads(self) -> int:
        """Threads that the library was tuned and measured with."""
        return self.target.threads

    @property
    def batch(self) -> int:
        """Images that the library computes at a time."""
        return self.input_shape[0]

    def to_json(self) -> dict[str, Any]:
        """A JSON object, without the seal."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "target": self.target.to_json(),
            "target_fingerprint": self.target.fingerprint(),
            "threads": self.threads,
            "preprocess": self.preprocess.to_json(),
            "labels": list(self.labels),
            "input_shape": list(self.input_shape),
            "output_shape": list(self.output_shape),
            "frontier": self.frontier,
            **{name: dict(getattr(self, name)) for name in _FREE_FIELDS},
            "files": dict(self.files),
            "created_by": self.created_by,
        }

    def to_bytes(self) -> bytes:
        """Text of ``manifest.json``: the same bytes for equal manifests, with a seal over all of them.

        Raises
        ------
        BadBundle
            If a free field holds what JSON does not have.
        """
        try:
            text = json.dumps({**self.to_json(), _SEAL: ""}, sort_keys=True, indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BadBundle(
                f"the manifest cannot be written as JSON ({error}); write unknown numbers as None and arrays as lists"
            ) from error
        unsealed = text.encode("ascii") + b"\n"
        return _sealed(unsealed, hashlib.sha256(unsealed).hexdigest())

    @classmethod
    def from_bytes(cls, data: bytes, where: str = MANIFEST_FILE) -> Self:
        """The manifest that `to_bytes` wrote, every byte of it.

        Parameters
        ----------
        data : bytes
            The file.
        where : str
            Its path, for messages.

        Raises
        ------
        BadBundle
            Naming `where`: a changed byte, no JSON, a newer schema, a field that is missing, unknown or of the wrong
            type.
        """
        try:
            loaded: Any = json.loads(data.decode("utf-8"))
        except (UnicodeDecodeError, ValueError) as error:
            raise BadBundle(f"{where} is no readable JSON ({error}): it was damaged; copy the bundle again") from error
        if not isinstance(loaded, dict):
            raise BadBundle(f"{where} holds no JSON object; copy the bundle again")
        fields = cast("dict[str, Any]", loaded)
        try:
            # First the version: a newer one may be sealed in another way.
            version = _get(fields, "schema_version", int)
            if version > SCHEMA_VERSION:
                raise BadBundle(
                    f"schema_version is {version}, this netcut-fx reads {SCHEMA_VERSION}; install a newer one"
                )
            _check_seal(data, fields.get(_SEAL))
            return cls._from_fields(fields)
        except (BadBundle, SpecError) as error:
            raise BadBundle(f"{where}: {error}") from error

    @classmethod
    def _from_fields(cls, data: dict[str, Any]) -> Self:
        if data["schema_version"] != SCHEMA_VERSION:
            raise BadBundle(f"there is no schema_version {data['schema_version']}; write the bundle again")
        files = cast("dict[str, object]", _get(data, "files", dict))
        for name, digest in files.items():
            if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
                raise BadBundle(f"the hash of file '{name}' is {digest!r}, expected 64 hexadecimal digits")
            if not name or name.startswith(".") or "/" in name or "\\" in name:
                raise BadBundle(f"'{name}' is no plain file name")
        manifest = cls(
            name=_get(data, "name", str),
            target=Target.from_json(_get(data, "target", dict)),
            preprocess=Preprocess.from_json(_get(data, "preprocess", dict)),
            labels=_list(data, "labels", str),
            input_shape=_list(data, "input_shape", int),
            output_shape=_list(data, "output_shape", int),
            frontier=_get(data, "frontier", str),
            files=cast("dict[str, str]", files),
            created_by=_get(data, "created_by", str),
            **{name: _get(data, name, dict) for name in _FREE_FIELDS},
        )
        if _get(data, "threads", int) != manifest.threads:
            raise BadBundle(f"threads is {data['threads']}, but the target has {manifest.threads}")
        if _get(data, "target_fingerprint", str) != manifest.target.fingerprint():
            raise BadBundle("target_fingerprint does not fit the target")
        known = {*manifest.to_json(), _SEAL}
        unknown = sorted(set(data) - known)
        if unknown:
            raise BadBundle(f"there is no field '{unknown[0]}'; {did_you_mean(unknown[0], known)}")
        return manifest


def _sealed(data: bytes, seal: str) -> bytes:
    replace: Callable[[re.Match[bytes]], bytes] = lambda match: match[1] + seal.encode("ascii") + match[3]  # noqa: E731
    return _SEAL_TEXT.sub(replace, data, count=1)


def _check_seal(data: bytes, seal: object) -> None:
    """The seal is the hash of the file as it reads with an empty seal, so that no byte can change unseen."""
    if not isinstance(seal, str):
        raise BadBundle(f"field '{_SEAL}' is missing; write the bundle again, or copy it again")
    if hashlib.sha256(_sealed(data, "")).hexdigest() != seal:
        raise BadBundle(f"it was changed after the bundle was written (its bytes do not fit {_SEAL}); copy it again")


def _get(data: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    if name not in data:
        raise BadBundle(f"field '{name}' is missing")
    value = data[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadBundle(f"field '{name}' is {value!r}, expected {kind.__name__}")
    return value


def _list(data: Mapping[str, Any], name: str, kind: type[_T]) -> tuple[_T, ...]:
    members = cast("list[object]", _get(data, name, list))
    for member in members:
        if not isinstance(member, kind) or isinstance(member, bool):
            raise BadBundle(f"field '{name}' holds {member!r}, expected {kind.__name__}")
    return tuple(cast("list[_T]", members))
