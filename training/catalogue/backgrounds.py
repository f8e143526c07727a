"""Backgrounds of scenes: walls, floors, tables, shelves and gardens, drawn as SVG."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.catalogue.art import hsl, render

Painter = Callable[[np.random.Generator, int, int], str]


def _soft(rng: np.random.Generator, low: float = 62, high: float = 92) -> tuple[float, float, float]:
    """A random muted colour: hue, saturation, lightness. ``low`` and ``high`` bound the lightness."""
    return float(rng.uniform(0, 360)), float(rng.uniform(5, 32)), float(rng.uniform(low, high))


def _gradient(name: str, start: str, end: str) -> str:
    """A vertical gradient between two colours."""
    return (
        f'<linearGradient id="{name}" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="{start}"/>'
        f'<stop offset="1" stop-color="{end}"/></linearGradient>'
    )


def studio(rng: np.random.Generator, w: int, h: int) -> str:
    """The seamless paper background of a photo studio."""
    hue, saturation, lightness = _soft(rng, 70, 94)
    light, dark = hsl(hue, saturation, lightness), hsl(hue, saturation, lightness - 16)
    return (
        f'<radialGradient id="g" cx="{rng.uniform(0.3, 0.7):.2f}" cy="{rng.uniform(0.2, 0.6):.2f}" r="0.8">'
        f'<stop offset="0" stop-color="{light}"/><stop offset="1" stop-color="{dark}"/></radialGradient>'
        f'<rect width="{w}" height="{h}" fill="url(#g)"/>'
    )


def room(rng: np.random.Generator, w: int, h: int) -> str:
    """A painted wall, a skirting board and a floor of planks or carpet; sometimes a window or a picture."""
    wall, floor = _soft(rng), (float(rng.uniform(18, 38)), float(rng.uniform(25, 48)), float(rng.uniform(35, 66)))
    horizon = h * rng.uniform(0.45, 0.75)
    d = _gradient("wall", hsl(wall[0], wall[1], wall[2] + 4), hsl(wall[0], wall[1], wall[2] - 8))
    d += _gradient("floor", hsl(floor[0], floor[1], floor[2] - 8), hsl(floor[0], floor[1], floor[2] + 6))
    d += f'<rect width="{w}" height="{h}" fill="url(#wall)"/>'
    if rng.random() < 0.45:
        step = w / rng.integers(6, 14)
        stripe = hsl(wall[0], wall[1], wall[2] - 5)
        d += "".join(
            f'<rect x="{i * 2 * step:.1f}" width="{step:.1f}" height="{h}" fill="{stripe}"/>' for i in range(8)
        )
    if rng.random() < 0.5:
        x, y, side = rng.uniform(0.05, 0.6) * w, rng.uniform(0.03, 0.12) * h, rng.uniform(0.22, 0.34) * w
        d += f'<rect x="{x:.0f}" y="{y:.0f}" width="{side:.0f}" height="{side * 1.1:.0f}" fill="#f4f0e6"/>'
        sky = hsl(rng.uniform(180, 225), rng.uniform(30, 60), rng.uniform(70, 88))
        for i in range(2):
            for j in range(2):
                d += (
                    f'<rect x="{x + side * (0.05 + i * 0.47):.0f}" y="{y + side * (0.05 + j * 0.52):.0f}" '
                    f'width="{side * 0.43:.0f}" height="{side * 0.47:.0f}" fill="{sky}"/>'
                )
    d += f'<rect y="{horizon:.0f}" width="{w}" height="{h - horizon:.0f}" fill="url(#floor)"/>'
    if rng.random() < 0.6:
        for i in range(-10, 11):
            d += (
                f'<path d="M{w / 2 + i * w * 0.07:.0f} {horizon:.0f}L{w / 2 + i * w * 0.19:.0f} {h}" '
                'stroke="#000" stroke-opacity="0.16" stroke-width="1.2"/>'
            )
    d += f'<rect y="{horizon - 9:.0f}" width="{w}" height="9" fill="{hsl(wall[0], 8, 93)}"/>'
    return d + f'<rect y="{horizon:.0f}" width="{w}" height="3" fill="#000" fill-opacity="0.18"/>'


def planks(rng: np.random.Generator, w: int, h: int) -> str:
    """A table top of boards, seen from above."""
    hue, saturation, lightness = rng.uniform(18, 40), rng.uniform(20, 55), rng.uniform(30, 78)
    board = rng.uniform(0.1, 0.2) * h
    d = ""
    y = -rng.uniform(0, board)
    while y < h:
        tone = lightness + rng.uniform(-5, 5)
        d += f'<rect y="{y:.1f}" width="{w}" height="{board:.1f}" fill="{hsl(hue, saturation, tone)}"/>'
        for _ in range(5):
            gy = y + rng.uniform(0.1, 0.9) * board
            bend = rng.uniform(-5, 5)
            d += (
                f'<path d="M0 {gy:.1f}Q{w * rng.uniform(0.2, 0.8):.0f} {gy + bend:.1f} {w} {gy + bend / 3:.1f}" fill="none" '
                f'stroke="{hsl(hue, saturation, tone - 9)}" stroke-opacity="0.5" stroke-width="{rng.uniform(0.6, 2):.1f}"/>'
            )
        d += f'<rect y="{y:.1f}" width="{w}" height="1.6" fill="#000" fill-opacity="0.35"/>'
        y += board
    return d


def tiles(rng: np.random.Generator, w: int, h: int) -> str:
    """Glazed tiles or bricks."""
    hue, saturation, lightness = _soft(rng, 45, 90)
    if rng.random() < 0.4:
        hue, saturation, lightness = rng.uniform(5, 25), rng.uniform(30, 50), rng.uniform(38, 60)
    tw = rng.uniform(0.09, 0.2) * w
    th = tw * rng.choice((0.45, 1.0))
    d = f'<rect width="{w}" height="{h}" fill="{hsl(hue, saturation * 0.4, min(lightness + 12, 92))}"/>'
    for row in range(int(h / th) + 1):
        for column in range(-1, int(w / tw) + 1):
            x = column * tw + (tw / 2 if row % 2 and th < tw else 0)
            tone = hsl(hue, saturation, lightness + rng.uniform(-4, 4))
            d += (
                f'<rect x="{x + 1:.1f}" y="{row * th + 1:.1f}" width="{tw - 2:.1f}" height="{th - 2:.1f}" '
                f'rx="1.5" fill="{tone}"/>'
            )
    return d


def garden(rng: np.random.Generator, w: int, h: int) -> str:
    """Sky, blurred hedges and a lawn."""
    horizon = h * rng.uniform(0.35, 0.6)
    d = _gradient("sky", hsl(210, 60, 72), hsl(205, 50, 90))
    d += _gradient("lawn", hsl(105, 35, 34), hsl(95, 42, 48))
    d += f'<rect width="{w}" height="{h}" fill="url(#sky)"/>'
    for _ in range(14):
        r = rng.uniform(0.08, 0.18) * w
        d += (
            f'<circle cx="{rng.uniform(0, w):.0f}" cy="{horizon - r * 0.3:.0f}" r="{r:.0f}" '
            f'fill="{hsl(rng.uniform(85, 135), rng.uniform(20, 40), rng.uniform(26, 46))}" fill-opacity="0.85"/>'
        )
    d += f'<rect y="{horizon:.0f}" width="{w}" height="{h - horizon:.0f}" fill="url(#lawn)"/>'
    for _ in range(160):
        x, y = rng.uniform(0, w), rng.uniform(horizon, h)
        d += (
            f'<path d="M{x:.0f} {y:.0f}q{rng.uniform(-3, 3):.1f} -6 {rng.uniform(-4, 4):.1f} -{rng.uniform(6, 13):.0f}" '
            f'stroke="{hsl(rng.uniform(85, 120), 40, rng.uniform(28, 60))}" stroke-width="1.4" fill="none"/>'
        )
    return d


def shelf(rng: np.random.Generator, w: int, h: int) -> str:
    """The boards of a shop's shelf in front of a wall."""
    hue, saturation, lightness = _soft(rng, 55, 90)
    wood = (rng.uniform(20, 38), rng.uniform(10, 50), rng.uniform(35, 85))
    d = f'<rect width="{w}" height="{h}" fill="{hsl(hue, saturation, lightness)}"/>'
    count = int(rng.integers(2, 4))
    for i in range(1, count + 1):
        y = h * (i / count) - 12
        d += f'<rect y="{y:.0f}" width="{w}" height="11" fill="{hsl(*wood)}"/>'
        d += f'<rect y="{y + 11:.0f}" width="{w}" height="{h * 0.06:.0f}" fill="#000" fill-opacity="0.13"/>'
    return d


def cloth(rng: np.random.Generator, w: int, h: int) -> str:
    """A bedspread or tablecloth with folds, and often with a pattern."""
    hue, saturation, lightness = _soft(rng, 50, 90)
    d = f'<rect width="{w}" height="{h}" fill="{hsl(hue, saturation, lightness)}"/>'
    if rng.random() < 0.6:
        step, second = rng.uniform(14, 40), hsl(hue + rng.uniform(-40, 40), saturation, lightness + rng.uniform(-14, 8))
        mark = rng.choice(("dots", "checks", "stripes"))
        shape = {
            "dots": f'<circle cx="{step / 2:.0f}" cy="{step / 2:.0f}" r="{step * 0.18:.1f}" fill="{second}"/>',
            "checks": f'<path d="M0 0h{step / 2:.1f}v{step / 2:.1f}h{-step / 2:.1f}z" fill="{second}"/>',
            "stripes": f'<path d="M0 0h{step / 2:.1f}v{step:.1f}h{-step / 2:.1f}z" fill="{second}"/>',
        }[str(mark)]
        d += (
            f'<pattern id="p" width="{step:.1f}" height="{step:.1f}" patternUnits="userSpaceOnUse" '
            f'patternTransform="rotate({rng.uniform(0, 90):.0f})">{shape}</pattern>'
            f'<rect width="{w}" height="{h}" fill="url(#p)"/>'
        )
    for _ in range(6):
        x = rng.uniform(-0.2, 1.1) * w
        d += (
            f'<path d="M{x:.0f} 0Q{x + rng.uniform(-60, 60):.0f} {h / 2:.0f} {x + rng.uniform(-80, 80):.0f} {h}" '
            f'fill="none" stroke="{rng.choice(("#000", "#fff"))}" stroke-opacity="0.07" '
            f'stroke-width="{rng.uniform(14, 50):.0f}"/>'
        )
    return d


def stone(rng: np.random.Generator, w: int, h: int) -> str:
    """A worktop of veined stone."""
    lightness = rng.uniform(25, 92)
    d = f'<rect width="{w}" height="{h}" fill="{hsl(rng.uniform(0, 360), rng.uniform(2, 10), lightness)}"/>'
    vein = "#000" if lightness > 55 else "#fff"
    for _ in range(16):
        x, y = rng.uniform(-0.2, 1) * w, rng.uniform(-0.1, 1.1) * h
        dx, dy = rng.uniform(0.3, 0.9) * w, rng.uniform(-0.4, 0.4) * h
        d += (
            f'<path d="M{x:.0f} {y:.0f}q{dx * 0.3:.0f} {dy + rng.uniform(-40, 40):.0f} {dx:.0f} {dy:.0f}" fill="none" '
            f'stroke="{vein}" stroke-opacity="{rng.uniform(0.04, 0.2):.2f}" stroke-width="{rng.uniform(0.6, 5):.1f}"/>'
        )
    return d


PAINTERS: tuple[Painter, ...] = (studio, room, planks, tiles, garden, shelf, cloth, stone)


def paint_background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A random background: RGB uint8 [height, width, 3]."""
    painter = PAINTERS[int(rng.integers(len(PAINTERS)))]
    body = painter(rng, width, height)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{body}</svg>'
    return render(svg, width, height)[..., :3]
