"""Tools for drawing a product as SVG.

A drawing covers a square of -100 to 100 units: x points right, y points down, and the light comes from the upper left.
A product's drawing function receives an :class:`Art` and calls its methods from back to front. resvg renders the SVG.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import resvg_py

T = TypeVar("T")
Point = tuple[float, float]

COLOURS: dict[str, tuple[float, float, float]] = {
    # hue in degrees, saturation and lightness in per cent
    "red": (357, 78, 45),
    "orange": (25, 92, 54),
    "yellow": (49, 92, 58),
    "green": (135, 50, 37),
    "blue": (215, 75, 47),
    "purple": (275, 48, 46),
    "pink": (338, 80, 76),
    "brown": (22, 48, 30),
    "black": (230, 6, 14),
    "white": (45, 15, 95),
}
PATTERNS = ("plain", "striped", "checked", "dotted", "floral")

# Surfaces that do not take the product's colour: hue, saturation, lightness.
MATERIALS: dict[str, tuple[float, float, float]] = {
    "white": (45, 10, 95),
    "black": (230, 5, 13),
    "grey": (220, 5, 55),
    "steel": (212, 9, 72),
    "gold": (43, 62, 55),
    "wood": (30, 45, 52),
    "dark wood": (22, 45, 30),
    "leather": (24, 50, 36),
    "glass": (200, 35, 85),
    "cream": (42, 50, 88),
    "screen": (222, 30, 17),
    "leaf": (125, 42, 36),
    "soil": (24, 40, 20),
    "cork": (32, 45, 62),
    "rubber": (230, 6, 22),
}


def hsl(hue: float, saturation: float, lightness: float) -> str:
    """A colour as ``#rrggbb``. ``hue`` is in degrees; saturation and lightness are clipped to 0 to 100 per cent."""
    s, lightness = (min(max(v, 0), 100) / 100 for v in (saturation, lightness))
    rgb = colorsys.hls_to_rgb(hue % 360 / 360, lightness, s)
    return "#" + "".join(f"{round(255 * v):02x}" for v in rgb)


# ---------------------------------------------------------------- paths: each returns the `d` of an SVG path


def rect(x: float, y: float, w: float, h: float, r: float = 0) -> str:
    """A rectangle from its upper left corner, with corners rounded by ``r``."""
    r = min(r, w / 2, h / 2)
    if r <= 0:
        return f"M{x:.2f} {y:.2f}h{w:.2f}v{h:.2f}h{-w:.2f}z"
    arc = f"a{r:.2f} {r:.2f} 0 0 1 "
    return (
        f"M{x + r:.2f} {y:.2f}h{w - 2 * r:.2f}{arc}{r:.2f} {r:.2f}v{h - 2 * r:.2f}{arc}{-r:.2f} {r:.2f}"
        f"h{2 * r - w:.2f}{arc}{-r:.2f} {-r:.2f}v{2 * r - h:.2f}{arc}{r:.2f} {-r:.2f}z"
    )


def ellipse(cx: float, cy: float, rx: float, ry: float | None = None) -> str:
    """An ellipse around a centre. Without ``ry`` it is a circle."""
    ry = rx if ry is None else ry
    arc = f"a{rx:.2f} {ry:.2f} 0 1 0 "
    return f"M{cx - rx:.2f} {cy:.2f}{arc}{2 * rx:.2f} 0{arc}{-2 * rx:.2f} 0z"


def poly(*points: Point, closed: bool = True) -> str:
    """Straight lines through the points."""
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points) + ("z" if closed else "")


def smooth(*points: Point, closed: bool = True) -> str:
    """A smooth curve through the points (Catmull-Rom). A point that is given twice in a row makes a sharp corner."""
    p = list(points)
    ring = [p[-1], *p, p[0], p[1]] if closed else [p[0], *p, p[-1]]
    d = f"M{ring[1][0]:.2f} {ring[1][1]:.2f}"
    for i, (a, b) in enumerate(pairwise(ring[1:-1]), start=1):
        if a == b:
            continue
        before, after = ring[i - 1], ring[i + 2]
        c1 = (a[0] + (b[0] - before[0]) / 6, a[1] + (b[1] - before[1]) / 6) if a != before else a
        c2 = (b[0] - (after[0] - a[0]) / 6, b[1] - (after[1] - a[1]) / 6) if b != after else b
        d += f"C{c1[0]:.2f} {c1[1]:.2f} {c2[0]:.2f} {c2[1]:.2f} {b[0]:.2f} {b[1]:.2f}"
    return d + ("z" if closed else "")


def symmetric(*right: Point) -> Sequence[Point]:
    """A whole outline, clockwise, from the points of its right half, top to bottom.

    Use it as ``poly(*symmetric(...))`` or ``smooth(*symmetric(...))``.
    """
    return (*right, *((-x, y) for x, y in reversed(right) if x != 0))


def joined(*runs: Sequence[Point]) -> str:
    """An outline of soft curves that meet in sharp corners."""
    return "M" + "L".join(smooth(*run, closed=False)[1:] for run in runs) + "z"


def turned(*right: Point) -> str:
    """A symmetric outline from its right side, top to bottom, with flat ends: what a lathe or a potter's wheel makes."""
    return joined(right, [(-x, y) for x, y in reversed(right)])


def drum(top: float, bottom: float, rt: float, rb: float, ry: float = 7) -> str:
    """The wall of an upright round vessel: straight sides, and edges that bulge towards the viewer."""
    bow = ry * rt / max(rb, 1)
    return (
        f"M{-rt:.1f} {top:.1f}L{-rb:.1f} {bottom:.1f}A{rb:.1f} {ry:.1f} 0 0 0 {rb:.1f} {bottom:.1f}"
        f"L{rt:.1f} {top:.1f}A{rt:.1f} {bow:.1f} 0 0 1 {-rt:.1f} {top:.1f}z"
    )


SHADINGS = Path(__file__).with_name("shadings.xml").read_text()
"""SVG gradients over a shape's own box, with the ids ``shade-flat``, ``shade-soft``, …"""


class Art:
    """A drawing that grows layer by layer.

    ``rng`` varies the shape. ``colour`` and ``pattern`` are names of ``COLOURS`` and ``PATTERNS``. Tones are ``main``
    (colour and pattern), ``plain`` (the colour alone), ``light`` and ``dark`` (shades of the colour), ``accent`` (the
    pattern's second colour) and every name of ``MATERIALS``.
    """

    def __init__(self, rng: np.random.Generator, colour: str, pattern: str) -> None:
        self.rng = rng
        hue, saturation, lightness = COLOURS[colour]
        self._hsl = (
            hue + self.vary(-5, 5),
            saturation * self.vary(0.9, 1.08),
            lightness + self.vary(-3.5, 3.5) * (0.5 if colour in ("black", "white") else 1),
        )
        self._accent = self._second_colour(colour)
        self._tiles = self._pattern(pattern)
        self._layers: list[str] = []

    # -- random choices

    def vary(self, low: float, high: float) -> float:
        """A number drawn uniformly from the range."""
        return float(self.rng.uniform(low, high))

    def pick(self, *options: T) -> T:
        """One of the options, drawn uniformly."""
        return options[int(self.rng.integers(len(options)))]

    def coin(self, probability: float = 0.5) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    # -- layers

    def body(self, d: str, shading: str = "soft", tone: str = "main", opacity: float = 1) -> None:
        """A shaded surface: ``flat``, ``soft`` (cloth, boxes), ``tube`` (upright cylinder), ``bar`` (lying one), ``ball``."""
        edge = self._edge(tone)
        coats = "".join(f'<path d="{d}" fill="{paint}"/>' for paint in self._coats(tone))
        self._layers.append(
            f'<g opacity="{opacity:.2f}">{coats}<path d="{d}" fill="url(#shade-{shading})" stroke="{edge}" stroke-width="1.3" '
            'stroke-opacity="0.55" stroke-linejoin="round"/></g>'
        )

    def fill(self, d: str, tone: str, opacity: float = 1) -> None:
        """A surface without shading or outline, such as a print or a label."""
        for paint in self._coats(tone):
            self._layers.append(f'<path d="{d}" fill="{paint}" fill-opacity="{opacity:.2f}"/>')

    def line(self, d: str, width: float, tone: str, opacity: float = 1, dash: str = "") -> None:
        """A stroke with round ends. ``dash`` has SVG's syntax: ``"3 2"`` looks like a seam."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        for paint in self._coats(tone):
            self._layers.append(
                f'<path d="{d}" fill="none" stroke="{paint}" stroke-width="{width:.2f}" stroke-linecap="round" '
                f'stroke-linejoin="round" stroke-opacity="{opacity:.2f}"{dashes}/>'
            )

    def tube(self, d: str, width: float, tone: str) -> None:
        """A round rod along the path, such as a handle or a frame: edge, core and highlight."""
        self.line(d, width + 1.6, "black", 0.32)
        self.line(d, width, tone)
        with self.group(at=(-width * 0.14, -width * 0.16)):
            self.line(d, width * 0.3, "white", 0.4)

    def shadow(self, d: str, opacity: float = 0.25) -> None:
        """A dark translucent surface: a fold, or a shadow that one part of the product casts on another."""
        self.fill(d, "black", opacity)

    def hollow(self, d: str, depth: float) -> None:
        """A dark opening, such as the top of a boot. ``depth`` is 0 to 1; a deeper opening is darker."""
        self.fill(d, "dark")
        self.shadow(d, depth)

    def gloss(self, d: str, opacity: float = 0.45) -> None:
        """A white translucent surface: a reflection."""
        self._layers.append(f'<path d="{d}" fill="#fff" fill-opacity="{opacity:.2f}"/>')

    @contextmanager
    def group(
        self, at: Point = (0, 0), rotate: float = 0, scale: float | Point = 1, clip: str | None = None
    ) -> Iterator[None]:
        """Scale, rotate (degrees, clockwise) and move the layers drawn inside, in this order; clip them to a path."""
        sx, sy = scale if isinstance(scale, tuple) else (scale, scale)
        transform = f"translate({at[0]:.2f} {at[1]:.2f}) rotate({rotate:.2f}) scale({sx:.3f} {sy:.3f})"
        attribute = ""
        if clip is not None:
            name = f"clip{len(self._layers)}"
            self._layers.append(f'<clipPath id="{name}"><path d="{clip}"/></clipPath>')
            attribute = f' clip-path="url(#{name})"'
        self._layers.append(f'<g transform="{transform}"><g{attribute}>')
        yield
        self._layers.append("</g></g>")

    # -- paints

    def _coats(self, tone: str) -> tuple[str, ...]:
        """The SVG paints of a tone, bottom to top. A pattern's tiles lie on an unbroken ground, so that no seams show."""
        return (self._colour(tone), *(["url(#main)"] if tone == "main" and self._tiles else []))

    def _colour(self, tone: str) -> str:
        h, s, lightness = self._hsl
        if tone in ("main", "plain"):
            return hsl(h, s, lightness)
        if tone == "light":
            return hsl(h, s * 0.85, lightness + (100 - lightness) * 0.4)
        if tone == "dark":
            return hsl(h, s, lightness * 0.62)
        if tone == "accent":
            return self._accent
        return hsl(*MATERIALS[tone])

    def svg(self) -> str:
        """The drawing as an SVG document of 300 by 300 units with a transparent background."""
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-150 -150 300 300">'
            f"{SHADINGS}<defs>{self._tiles}</defs>{''.join(self._layers)}</svg>"
        )

    def _edge(self, tone: str) -> str:
        h, s, lightness = self._hsl if tone in ("main", "plain", "light", "dark") else MATERIALS.get(tone, self._hsl)
        return hsl(h, s * 0.8, lightness * 0.45)

    def _second_colour(self, colour: str) -> str:
        if colour == "white":
            return hsl(self.pick(215, 357, 135, 230), 45, 38)
        if colour in ("yellow", "pink"):
            return self.pick(hsl(0, 0, 99), hsl(self._hsl[0] - 12, 70, 32))
        return self.pick(hsl(0, 0, 98), hsl(48, 70, 86))

    def _pattern(self, pattern: str) -> str:
        """The SVG definition ``#main`` of the pattern's tiles. A plain product has none."""
        if pattern == "plain":
            return ""
        second, size = self._accent, self.vary(17, 25)
        turn, length = 0.0, size
        if pattern == "striped":
            turn = self.pick(0.0, 90.0, 90.0, 45.0) + self.vary(-3, 3)
            width = size * self.vary(0.38, 0.55)
            length = 400
            tile = f'<rect width="{width:.1f}" height="{length}" fill="{second}"/>'
        elif pattern == "checked":
            turn = self.pick(0.0, 45.0)
            half = size / 2
            tile = (
                f'<rect width="{half:.1f}" height="{size:.1f}" fill="{second}" fill-opacity="0.55"/>'
                f'<rect width="{size:.1f}" height="{half:.1f}" fill="{second}" fill-opacity="0.55"/>'
            )
        elif pattern == "dotted":
            turn = self.pick(0.0, 45.0, 30.0)
            r = size * self.vary(0.2, 0.27)
            tile = f'<circle cx="{size / 2:.1f}" cy="{size / 2:.1f}" r="{r:.1f}" fill="{second}"/>'
        else:
            size = length = size * 1.35
            turn = self.vary(0, 60)
            tile = self._flower(size * 0.3, size * 0.32, size * 0.16, second)
            tile += self._flower(size * 0.77, size * 0.76, size * 0.11, second)
        return (
            f'<pattern id="main" width="{size:.1f}" height="{length:.1f}" patternUnits="userSpaceOnUse" '
            f'patternTransform="rotate({turn:.1f})">{tile}</pattern>'
        )

    @staticmethod
    def _flower(cx: float, cy: float, r: float, colour: str) -> str:
        petals = "".join(
            f'<ellipse cx="{cx:.1f}" cy="{cy - r:.1f}" rx="{r * 0.55:.1f}" ry="{r * 0.85:.1f}" fill="{colour}" '
            f'transform="rotate({72 * i} {cx:.1f} {cy:.1f})"/>'
            for i in range(5)
        )
        return petals + f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{r * 0.5:.1f}" fill="#e9a13b"/>'


def render(svg: str, width: int, height: int) -> np.ndarray:
    """Render SVG: RGBA uint8 [height, width, 4], with straight alpha."""
    png = resvg_py.svg_to_bytes(svg_string=svg, width=width, height=height, skip_system_fonts=True)
    return cv2.cvtColor(decode(bytes(png), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


def decode(file: bytes, mode: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    """Decode a picture, by default to RGB uint8 [height, width, 3]. Raises ValueError if OpenCV cannot decode it."""
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), mode)
    if pixels is None:
        raise ValueError(f"OpenCV cannot decode these {len(file)} bytes as a picture")
    return np.asarray(pixels)
