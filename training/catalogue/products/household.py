"""Vases, clocks, plants and other things of a household."""

from __future__ import annotations

from math import cos, pi, sin

from training.catalogue.art import Art, drum, ellipse, poly, rect, smooth, turned


def _wavy(cx: float, cy: float, r: float, waves: int, depth: float, turn: float = 0) -> str:
    """A circle with a scalloped edge."""
    steps = [2 * pi * i / (4 * waves) for i in range(4 * waves)]
    radii = [r * (1 - depth * (1 - cos(waves * t)) / 2) for t in steps]
    return smooth(*((cx + q * cos(t + turn), cy + q * sin(t + turn)) for t, q in zip(steps, radii, strict=True)))


def _leaf(a: Art, at: tuple[float, float], angle: float, length: float, width: float) -> None:
    """A leaf growing from ``at``, upright at angle 0, with its rib."""
    with a.group(at=at, rotate=angle):
        a.body(turned((0, -length), (width, -length * 0.45), (0, 0)), "flat", "leaf")
        a.line(f"M0 0L0 {-length * 0.85:.1f}", 1.3, "cream", 0.5)


def _blossom(a: Art, x: float, y: float, r: float, tone: str) -> None:
    """A flower head with petals all around."""
    a.body(_wavy(x, y, r, a.pick(5, 6, 8), 0.42, a.vary(0, 1)), "ball", tone)
    a.body(ellipse(x, y, r * 0.33), "ball", "gold")


def flower_vase(a: Art) -> None:
    top, w = a.vary(-32, -18), a.vary(44, 56)
    h = 98 - top
    lip, neck = a.vary(22, 30), a.vary(13, 19)
    for x in a.pick((-40, 4, 42), (-46, -16, 18, 46), (-30, 32)):
        y = a.vary(-70, -60) - 11 * (abs(x) < 20)
        a.line(f"M0 {top + 4:.1f}Q{x * 0.3:.1f} {top - 24:.1f} {x} {y:.1f}", 3, "leaf")
        _leaf(a, (x * 0.35, top - 18), x * 1.1 + a.vary(18, 30) * (1 if x > 0 else -1), 26, 7)
        _blossom(a, x, y, a.vary(15, 18), a.pick("cream", "light", "white"))
    belly = a.pick(
        ((neck, 0.16), (w * 0.8, 0.4), (w, 0.58), (w * 0.75, 0.84)),
        ((neck, 0.14), (w, 0.34), (w * 0.85, 0.58), (w * 0.5, 0.86)),
        ((neck, 0.22), (neck + 3, 0.36), (w, 0.7), (w * 0.85, 0.9)),
    )
    foot = belly[-1][0] * 0.8
    a.body(turned((lip, top), *((x, top + h * k) for x, k in belly), (foot, 96)), "ball")
    a.body(rect(-foot - 3, 92, 2 * foot + 6, 6, 2), "tube", "plain")
    a.body(ellipse(0, top, lip, 6), "flat", "light")
    a.shadow(ellipse(0, top + 1, lip - 4, 3.8), 0.55)
    a.gloss(ellipse(-w * 0.45, top + h * 0.5, 5, 16), 0.45)


def _dial(a: Art, cx: float, cy: float, r: float) -> None:
    """A clock's white face with hour marks and hands."""
    a.body(ellipse(cx, cy, r), "soft", "white")
    for i in range(12):
        c, s = sin(pi * i / 6), -cos(pi * i / 6)
        inner = 0.72 if i % 3 == 0 else 0.8
        a.line(f"M{cx + c * r * inner:.1f} {cy + s * r * inner:.1f}L{cx + c * r * 0.87:.1f} {cy + s * r * 0.87:.1f}",
               r * (0.085 if i % 3 == 0 else 0.045), "black")  # fmt: skip
    hour = a.vary(0, 12)
    for turn, reach, width in ((hour / 12, 0.45, 0.1), (hour % 1, 0.66, 0.07)):
        a.line(f"M{cx:.1f} {cy:.1f}L{cx + sin(2 * pi * turn) * r * reach:.1f} {cy - cos(2 * pi * turn) * r * reach:.1f}",
               r * width, "black")  # fmt: skip
    a.body(ellipse(cx, cy, r * 0.09), "ball", "gold")


def wall_clock(a: Art) -> None:
    r, face = a.vary(93, 98), a.vary(52, 60)
    shape = a.pick("round", "round", "square", "octagon", "scalloped")
    if shape == "square":
        a.body(rect(-r + 4, -r + 4, 2 * r - 8, 2 * r - 8, a.vary(14, 44)))
    elif shape == "octagon":
        a.body(poly(*((r * sin(pi * (i + 0.5) / 4), r * cos(pi * (i + 0.5) / 4)) for i in range(8))))
    elif shape == "scalloped":
        a.body(_wavy(0, 0, r, a.pick(8, 10, 12), 0.13))
    else:
        a.body(ellipse(0, 0, r))
        a.line(ellipse(0, 0, r - 5), 2, "white", 0.35)
    rim = a.pick("dark", "gold", "steel")
    a.shadow(ellipse(2, 3, face + 7), 0.25)
    a.body(ellipse(0, 0, face + 5), "soft", rim)
    _dial(a, 0, 0, face)


def alarm_clock(a: Art) -> None:
    r, cy, metal = a.vary(68, 74), 20, a.pick("gold", "steel", "black")
    for side in (-1, 1):
        a.tube(poly((side * r * 0.55, cy + r * 0.7), (side * r * 0.82, 95), closed=False), 9, metal)
    a.tube(smooth((-30, -62), (-22, -90), (0, -95), (22, -90), (30, -62), closed=False), 5, metal)
    a.tube(poly((0, -40), (0, -66), closed=False), 4, metal)
    a.body(rect(-9, -76, 18, 13, 4), "bar", metal)
    tilt, bell = a.vary(34, 40), a.vary(32, 37)
    for side in (-1, 1):
        with a.group(rotate=side * tilt, at=(0, cy)):
            a.tube(f"M0 {-r:.1f}v-10", 6, metal)
            a.body(f"M{-bell:.1f} {-r - 8:.1f}C{-bell:.1f} {-r - 46:.1f} {bell:.1f} {-r - 46:.1f} {bell:.1f} {-r - 8:.1f}"
                   f"Q0 {-r - 3:.1f} {-bell:.1f} {-r - 8:.1f}z", "ball")  # fmt: skip
            a.body(ellipse(0, -r - 38, 4.5), "ball", metal)
    if a.coin(0.3):
        a.body(rect(-r, cy - r, 2 * r, 2 * r, r * 0.62))
    else:
        a.body(ellipse(0, cy, r))
    a.line(ellipse(0, cy, r - 4), 2, "white", 0.3)
    face = r * a.vary(0.6, 0.66)
    a.body(ellipse(0, cy, face + 4), "soft", metal)
    _dial(a, 0, cy, face)


def _foliage(a: Art, y: float) -> None:
    """A potted plant above the rim at ``y``: bushy, sword-leaved or a cactus."""
    kind = a.pick("bush", "sword", "cactus")
    if kind == "cactus":
        w, rise = a.vary(20, 25), a.vary(70, 80)
        for side, at in ((-1, a.vary(0.35, 0.5)), (1, a.vary(0.5, 0.65))):
            elbow = y - rise * at
            a.tube(smooth((0, elbow), (side * 36, elbow), (side * 42, elbow - 26), closed=False), 15, "leaf")
        a.body(rect(-w, y - rise, 2 * w, rise + 5, w), "tube", "leaf")
        for x in (-0.45, 0, 0.45):
            a.line(f"M{w * x:.1f} {y - rise + 13:.1f}V{y:.1f}", 1.6, "cream", 0.75, "0.1 8")
        _blossom(a, 0, y - rise, 9, "light")
        return
    angles = (-72, 72, -48, 48, -24, 24, 0) if kind == "bush" else (-32, 32, -20, 20, -9, 10)
    for angle in angles:
        if kind == "bush":
            _leaf(a, (angle * 0.12, y + 2), angle + a.vary(-6, 6), a.vary(72, 84) - abs(angle) * 0.12, 15)
        else:
            _leaf(a, (angle * 0.7, y + 4), angle * 0.8, a.vary(70, 92), 9)


def plant_pot(a: Art) -> None:
    top, w = a.vary(-10, 2), a.vary(56, 66)
    foot = w * a.vary(0.62, 0.8)
    saucer = a.coin(0.5)
    base = 82 if saucer else 90
    if saucer:
        a.body(drum(84, 91, foot + 16, foot + 8, 7), "tube", "dark")
        a.body(ellipse(0, 84, foot + 16, 7), "flat", "plain")
    shape = a.pick("rim", "round", "straight")
    a_top = top + (18 if shape == "rim" else 0)
    if shape == "round":
        a.body(turned((w, top), (w * 1.12, top + 34), (w * 0.98, top + 66), (foot, base + 5)), "ball")
    else:
        a.body(drum(a_top, base, w - 5 if shape == "rim" else w, foot, 8), "tube")
    if shape == "rim":
        a.shadow(drum(a_top, a_top + 6, w - 5, w - 6, 8), 0.25)
        a.body(drum(top, a_top, w + 3, w + 1, 9), "tube")
        w += 3
    a.body(ellipse(0, top, w, 10), "flat", "light")
    a.fill(ellipse(0, top + 1.5, w - 5, 7), "soil")
    _foliage(a, top)


def candle(a: Art) -> None:
    w, top = a.vary(42, 56), a.vary(-34, -16)
    base, metal = 82, a.pick("gold", "steel", "wood", "glass")
    ry = w * 0.2
    plate = w + a.vary(18, 30)
    a.body(drum(base - 2, base + 5, plate, plate * 0.82, plate * 0.14), "tube", metal)
    a.body(ellipse(0, base - 2, plate, plate * 0.14), "flat", metal)
    a.shadow(ellipse(5, base, w + 6, ry * 0.85), 0.3)
    a.body(drum(top, base - 6, w, w, ry), "tube")
    if a.coin(0.5):
        drops = [(-w, 0), (-w, a.vary(20, 40)), (-w * 0.72, a.vary(34, 52)), (-w * 0.46, 14), (-w * 0.16, a.vary(26, 66)),
                 (w * 0.14, 16), (w * 0.45, a.vary(20, 36)), (w * 0.7, 12), (w, a.vary(24, 44)), (w, 0)]  # fmt: skip
        with a.group(clip=drum(top, base - 6, w, w, ry)):
            a.body(smooth(*((x, top + y) for x, y in drops)), "flat", "light")
    else:
        a.body(drum(base - 40, base - 24, w + 0.6, w + 0.6, ry), "tube", a.pick("light", "dark"))
    a.body(ellipse(0, top, w, ry), "flat", "light")
    a.body(ellipse(0, top + 1.5, w * 0.7, ry * 0.6), "flat", "plain")
    a.line(f"M0 {top + 2:.1f}q-2 -8 1 -15", 3, "black")
    f = a.vary(0.9, 1.1)
    with a.group(at=(0, top - 8), scale=f):
        a.fill(ellipse(0, -18, 27, 31), "gold", 0.13)
        a.body(turned((0, -48), (8, -27), (12, -11), (0, 3)), "flat", "gold")
        a.fill(turned((0, -33), (6, -12), (0, 0)), "cream", 0.95)


def bar_stool(a: Art) -> None:
    seat, w, spread = a.vary(-44, -32), a.vary(54, 62), a.vary(50, 62)
    leg, backed = a.pick("wood", "dark wood", "steel", "black", "gold"), a.coin(0.5)
    ry, thick = w * 0.22, a.vary(20, 28)
    if backed:
        seat += 8
        for side in (-1, 1):
            a.tube(poly((side * w * 0.62, seat), (side * w * 0.72, -80), closed=False), 5, leg)
        a.body(
            smooth((-w + 4, -98), (0, -90), (w - 4, -98), (w, -80), (w - 5, -58), (0, -50), (-w + 5, -58), (-w, -80))
        )
    else:
        seat -= 30
    under = seat + thick
    for side in (-1, 1):
        a.tube(poly((side * w * 0.4, under), (side * spread * 0.5, 86), closed=False), 6, leg)
    rest = a.vary(40, 56)
    share = (rest - under) / (98 - under)
    reach = w * 0.62 + (spread - w * 0.62) * share
    a.tube(ellipse(0, rest, reach, 7), 4, a.pick("steel", "gold", leg))
    for side in (-1, 1):
        a.tube(poly((side * w * 0.62, under), (side * spread, 95), closed=False), 7.5, leg)
    a.body(drum(seat, under, w, w - 3, ry), "tube")
    a.line(
        f"M{-w + 1:.1f} {seat + thick * 0.6:.1f}A{w - 1:.1f} {ry:.1f} 0 0 0 {w - 1:.1f} {seat + thick * 0.6:.1f}",
        2,
        "dark",
    )
    a.body(ellipse(0, seat, w, ry), "ball")


def bucket(a: Art) -> None:
    w, foot, top = a.vary(70, 80), a.vary(46, 56), a.vary(-34, -22)
    ry, base = w * 0.2, 86
    metal = a.pick("steel", "black", "grey")
    apex = -88
    a.body(ellipse(0, top, w, ry), "flat", "light")
    a.shadow(ellipse(0, top + 2, w - 6, ry - 4), 0.5)
    a.body(
        f"M{-w:.1f} {top:.1f}L{-foot:.1f} {base}A{foot:.1f} 11 0 0 0 {foot:.1f} {base}L{w:.1f} {top:.1f}"
        f"A{w:.1f} {ry:.1f} 0 0 1 {-w:.1f} {top:.1f}z",
        "tube",
    )
    for k in a.pick((0.22,), (0.75, 0.85), (0.2, 0.8)):
        r, y = w + (foot - w) * k, top + (base - top) * k
        a.line(f"M{-r:.1f} {y:.1f}A{r:.1f} {ry * (1 - k * 0.3):.1f} 0 0 0 {r:.1f} {y:.1f}", 3.4, "dark", 0.7)
    a.tube(ellipse(0, top, w, ry), 5, "plain")
    for side in (-1, 1):
        a.body(rect(side * (w - 1) - 8, top - 3, 16, 20, 5), "soft", "dark")
    d = f"M{-w + 1:.1f} {top + 5:.1f}C{-w:.1f} {apex - 14} {w:.1f} {apex - 14} {w - 1:.1f} {top + 5:.1f}"
    a.tube(d, 4, metal)
    y = top + 5 - 0.75 * (top + 5 - apex + 14)
    a.body(rect(-20, y - 6, 40, 12, 6), "bar", a.pick("wood", "dark", "black"))
