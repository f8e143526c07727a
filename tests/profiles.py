"""ICC profiles made by hand: matrix profiles of RGB, curves of grey, a table of CMYK."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
SRGB_XYZ = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
P3_XYZ = ((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841))
ADOBE_XYZ = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))


def srgb_to_linear(levels: np.ndarray) -> np.ndarray:
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)


def xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def curve(gamma: float | None) -> bytes:
    """A power, or a table of sRGB's curve."""
    if gamma is not None:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    table = np.round(srgb_to_linear(np.linspace(0, 1, 1024)) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + table.tobytes()


def profile(space: bytes, kind: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A profile of version 2."""
    body, entries, position = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        entries += name + struct.pack(">II", position + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = bytes(8) + struct.pack(">I", 0x02100000) + kind + space + connection + bytes(12) + b"acsp"
    head = head.ljust(68, b"\0") + xyz(D50)[8:]
    whole = head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + body
    return struct.pack(">I", len(whole)) + whole[4:]


@dataclass(frozen=True)
class Colours:
    """An RGB colour space: its primaries as XYZ at D50, and its power, or None for sRGB's curve."""

    primaries_xyz: tuple[tuple[float, ...], ...]
    gamma: float | None

    @property
    def profile(self) -> bytes:
        names = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, self.primaries_xyz), strict=True))
        curves = {name: curve(self.gamma) for name in (b"rTRC", b"gTRC", b"bTRC")}
        return profile(b"RGB ", b"mntr", b"XYZ ", {b"wtpt": xyz(D50), **names, **curves})

    def to_srgb(self, rgb: np.ndarray) -> np.ndarray:
        """(..., 3) uint8 to levels of sRGB as floats, by matrices."""
        levels = rgb / 255.0
        light = srgb_to_linear(levels) if self.gamma is None else levels**self.gamma
        linear = light @ np.array(self.primaries_xyz) @ np.linalg.inv(np.array(SRGB_XYZ))
        found: np.ndarray = linear_to_srgb(linear.clip(0, 1)) * 255
        return found

    def from_srgb(self, rgb: np.ndarray) -> np.ndarray:
        """Levels of sRGB (..., 3) uint8 to the levels that look the same in this space, which has sRGB's curve."""
        assert self.gamma is None
        light = srgb_to_linear(rgb / 255.0) @ np.array(SRGB_XYZ) @ np.linalg.inv(np.array(self.primaries_xyz))
        return np.round(linear_to_srgb(light.clip(0, 1)) * 255).astype(np.uint8)


SRGB = Colours(SRGB_XYZ, None)
P3 = Colours(P3_XYZ, None)
ADOBE = Colours(ADOBE_XYZ, 563 / 256)
GREY_GAMMA = 1.5
GREY_PROFILE = profile(b"GRAY", b"mntr", b"XYZ ", {b"wtpt": xyz(D50), b"kTRC": curve(GREY_GAMMA)})


def cmyk_profile() -> bytes:
    """A press whose cyan is a middle grey (L = 50), and on which all other inks are black."""
    ramp = bytes(range(256))
    corners = {(0, 0, 0, 0): 255, (1, 0, 0, 0): 128}
    grid = b"".join(
        bytes([corners.get((c, m, y, k), 0), 128, 128]) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)
    )
    identity = b"".join(struct.pack(">i", 65536 * (row == column)) for row in range(3) for column in range(3))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid + ramp * 3
    return profile(b"CMYK", b"prtr", b"Lab ", {b"wtpt": xyz(D50), b"A2B0": table})
