"""The network that peers run, in the form that each reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from netcut_fx.bundle import Bundle, network_beside
from netcut_fx.comparison.peers import PEERS, require
from netcut_fx.errors import SpecError


def peer_files(peers: Sequence[str], network: Path | None, bundle: Bundle, scratch: Path) -> dict[str, Path]:
    """For each peer the file that it reads: ``.pt2`` for torch, ``.onnx`` for the others, made in `scratch` if need be.

    Raises
    ------
    SpecError
        If there is no network, or torch is asked to read ONNX.
    BackendError
        If the network has no ONNX form, or what writes it is not installed.
    """
    if not peers:
        return {}
    path = network_beside(bundle.folder) if network is None else network
    if not path.is_file():
        raise SpecError(
            f"comparing with {peers[0]} needs the network itself, and there is no file {path}; write it with netcut "
            "export and give it with --network FILE.pt2"
        )
    if path.suffix not in (".pt2", ".onnx"):
        raise SpecError(f"--network {path} is neither .pt2 nor .onnx; write one with netcut export")
    torch_peers = [peer for peer in peers if PEERS[peer] == "torch"]
    if path.suffix == ".onnx":
        if torch_peers:
            raise SpecError(f"{torch_peers[0]} does not read ONNX; give the network as .pt2 with --network")
        return dict.fromkeys(peers, path)
    others = [peer for peer in peers if peer not in torch_peers]
    files = dict.fromkeys(torch_peers, path)
    if others:
        require("onnx", "writing the network for other runtimes")
        from netcut_fx.network_files import read_program, write_onnx

        onnx = scratch / "network.onnx"
        write_onnx(read_program(path), onnx)
        files.update(dict.fromkeys(others, onnx))
    return files
