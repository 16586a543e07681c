"""Shapes of register tiles, best first."""

from __future__ import annotations

from dataclasses import dataclass

from netcut_fx.backends.tvm.schedules.machine import Machine

#: Vector loads that a core can start per cycle, and fused multiply-adds.
_LOADS, _PRODUCTS = 2.0, 2.0
#: Cycles until a multiply-add can follow one on the same register.
_LATENCY = 4
#: What a step of the loop costs besides: counters, addresses.
_STEP = 0.5
_L1_WAYS, _L1_WAY_BYTES = 8, 4096
#: Factors for lines that push each other out of the cache, and for code of its own for a smaller last tile.
_EVICTION, _REMAINDER = 1.5, 1.1


@dataclass(frozen=True)
class Tile:
    """What the registers hold: `height` x `width` output positions of `vectors` vectors of `lanes` channels."""

    height: int
    width: int
    vectors: int
    lanes: int

    @property
    def rows(self) -> int:
        """Output positions."""
        return self.height * self.width

    @property
    def channels(self) -> int:
        """Output channels."""
        return self.vectors * self.lanes


def tiles(height: int, width: int, channels: int, lanes: int, machine: Machine, stride_bytes: int) -> tuple[Tile, ...]:
    """Tiles of an output plane, those that should run fastest first.

    Parameters
    ----------
    height, width : int
        Output positions.
    channels : int
        Output channels that read the same data.
    lanes : int
        Width of a vector.
    machine : Machine
        Whose registers must hold a tile.
    stride_bytes : int
        Distance of neighbouring positions of the data: lines of a tile that fall on one cache set push each other out.
    """
    found: dict[Tile, float] = {}
    for vectors in range(1, 9):
        if channels % (vectors * lanes):
            continue
        # One register for a broadcast element, one a vector for the weights.
        room = (machine.registers - 1 - vectors) // vectors
        for rows in range(1, min(room, width) + 1):
            for lines in range(1, room // rows + 1):
                # Several lines only where one is whole.
                if height % lines or (lines > 1 and rows != width):
                    continue
                tile = Tile(lines, rows, vectors, lanes)
                found[tile] = cost(tile, width, machine, stride_bytes)
    return tuple(sorted(found, key=lambda tile: (found[tile], tile.vectors)))


def cost(tile: Tile, width: int, machine: Machine, stride_bytes: int) -> float:
    """Cycles per product, relative to other tiles of the same output."""
    products = tile.rows * tile.vectors
    cycles = max(products / _PRODUCTS, (tile.rows + tile.vectors) / _LOADS, _LATENCY) + _STEP
    if stride_bytes % _L1_WAY_BYTES == 0 and tile.rows >= _L1_WAYS:
        cycles *= _EVICTION
    tiles_across = -(-width // tile.width)
    if tiles_across * tile.width > width:
        cycles *= _REMAINDER * tiles_across * tile.width / width
    return cycles / (tile.rows * tile.channels)
