"""Home and living."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin

from training.catalogue.art import Art, Point, ellipse, poly, rect, smooth
from training.catalogue.products import product


def _joined(*runs: Sequence[Point]) -> str:
    """An outline of soft curves that meet in sharp corners."""
    return "M" + "L".join(smooth(*run, closed=False)[1:] for run in runs) + "z"


def _turned(*right: Point) -> str:
    """A symmetric outline from its right side, top to bottom, with flat ends: what a lathe or a potter's wheel makes."""
    return _joined(right, [(-x, y) for x, y in reversed(right)])


def _wavy(cx: float, cy: float, r: float, waves: int, depth: float, turn: float = 0) -> str:
    """A circle with a scalloped edge."""
    steps = [2 * pi * i / (4 * waves) for i in range(4 * waves)]
    radii = [r * (1 - depth * (1 - cos(waves * t)) / 2) for t in steps]
    return smooth(*((cx + q * cos(t + turn), cy + q * sin(t + turn)) for t, q in zip(steps, radii, strict=True)))


def _drum(top: float, bottom: float, rt: float, rb: float, ry: float = 7) -> str:
    """The wall of an upright round vessel: straight sides, edges bulging towards the viewer."""
    bow = ry * rt / max(rb, 1)
    return (
        f"M{-rt:.1f} {top:.1f}L{-rb:.1f} {bottom:.1f}A{rb:.1f} {ry:.1f} 0 0 0 {rb:.1f} {bottom:.1f}"
        f"L{rt:.1f} {top:.1f}A{rt:.1f} {bow:.1f} 0 0 1 {-rt:.1f} {top:.1f}z"
    )


def _foot(a: Art, y: float, rx: float, thick: float, tone: str) -> None:
    """A round standing plate whose lowest edge lies at about ``y``."""
    ry = rx * 0.2
    a.body(_drum(y - ry - thick, y - ry, rx, rx, ry), "tube", tone)
    a.body(ellipse(0, y - ry - thick, rx, ry), "flat", tone)


def _shade(a: Art, top: float, bottom: float, rt: float, rb: float) -> None:
    """A lampshade with trimmed edges, a bulb's glow at its foot and the dark opening below."""
    ry = rb * 0.13
    a.body(ellipse(0, bottom, rb, ry), "flat", "cream")
    a.body(_drum(top, bottom - ry * 0.2, rt, rb, ry), "tube")
    trim = a.pick("dark", "accent", "gold")
    bow = ry * rt / rb
    a.line(f"M{-rb:.1f} {bottom - ry * 0.2:.1f}A{rb:.1f} {ry:.1f} 0 0 0 {rb:.1f} {bottom - ry * 0.2:.1f}", 3, trim)
    a.body(ellipse(0, top, rt, bow), "flat", "cream")
    a.shadow(ellipse(0, top + 0.6, rt - 3, max(bow - 1.6, 1)), 0.4)
    a.line(ellipse(0, top, rt, bow), 2.2, trim)


@product(
    "floor lamp", "home", synonyms=("standing lamp", "floor light"), materials=("linen", "brushed steel", "oak")
)  # fmt: skip
def floor_lamp(a: Art) -> None:
    rb, bottom = a.vary(46, 58), a.vary(-28, -14)
    rt = rb * a.vary(0.55, 0.95)
    metal = a.pick("gold", "steel", "black")
    if a.coin(0.45):
        wood, spread = a.pick("wood", "dark wood"), a.vary(40, 52)
        for x, y in ((spread * 0.2, 92), (-spread, 96), (spread, 96)):
            a.tube(poly((x * 0.1, bottom + 8), (x, y), closed=False), 6.5, wood)
        a.line(poly((-spread * 0.5, 45), (spread * 0.5, 45), closed=False), 2.5, metal)
        a.body(rect(-9, bottom, 18, 18, 3), "tube", metal)
    else:
        a.tube(poly((0, bottom - 10), (0, 90), closed=False), 6.5, metal)
        _foot(a, 99, a.vary(34, 44), 6, metal)
        a.body(rect(-5.5, a.vary(10, 40), 11, 12, 3), "tube", metal)
    x, drop = rb * 0.45, a.vary(20, 32)
    a.line(poly((x, bottom), (x, bottom + drop), closed=False), 1.5, "grey")
    a.body(ellipse(x, bottom + drop + 3, 3.2), "ball", metal)
    a.body(rect(-3, -100, 6, 14, 3), "tube", metal)
    _shade(a, -91, bottom, rt, rb)


@product("table lamp", "home", synonyms=("bedside lamp",), materials=("ceramic", "linen", "brass"))
def table_lamp(a: Art) -> None:
    rb, bottom = a.vary(64, 78), a.vary(-8, 6)
    rt = rb * a.vary(0.48, 0.85)
    metal = a.pick("gold", "steel")
    a.body(rect(-5, bottom - 10, 10, 40, 2), "tube", metal)
    neck, base, w = bottom + 16, 86, a.vary(32, 44)
    h = base - neck
    outline = a.pick(
        _turned((9, neck), (w, neck + h * 0.5), (18, base)),
        _turned((9, neck), (12, neck + h * 0.3), (w, neck + h * 0.75), (w * 0.7, base)),
        _turned((8, neck), (w * 0.9, neck + h * 0.22), (w * 0.85, neck + h * 0.5), (17, base)),
    )
    _foot(a, 98, a.vary(34, 42), 5, a.pick("wood", "dark wood", metal))
    a.body(outline, "ball")
    a.body(rect(-12, neck - 5, 24, 8, 3), "tube", metal)
    a.gloss(ellipse(-w * 0.4, neck + h * 0.5, 4, 9), 0.4)
    a.body(ellipse(0, -96, 4.5), "ball", metal)
    _shade(a, -90, bottom, rt, rb)


@product("desk lamp", "home", synonyms=("reading lamp", "work lamp"), materials=("metal", "aluminium", "steel"))
def desk_lamp(a: Art) -> None:
    side, metal = a.pick(-1, 1), a.pick("steel", "black", "gold")
    root, elbow = (-22 * side, 76), (side * a.vary(-74, -58), a.vary(0, 16))
    head = (side * a.vary(-6, 8), a.vary(-66, -56))
    a.tube(poly(root, elbow, closed=False), 7, metal)
    a.tube(poly(elbow, head, closed=False), 7, metal)
    a.body(ellipse(*elbow, 9), "ball", "dark")
    with a.group(at=(root[0], 0)):
        _foot(a, 98, a.vary(48, 58), 11, "main")
        a.body(rect(-10, 66, 20, 14, 4), "tube", "dark")
    w, h = a.vary(42, 50), a.vary(62, 72)
    with a.group(at=head, rotate=-side * a.vary(28, 46)):
        a.body(rect(-10, -34, 20, 26, 6), "tube", "dark")
        a.body(ellipse(0, h - 14, 15, 22), "ball", "cream")
        outline = a.pick(
            (f"M-16 -20Q-20 {h * 0.3:.1f} {-w:.1f} {h - 16:.1f}", f"Q20 {h * 0.3:.1f} 16 -20z"),
            (f"M-18 -20C{-w:.1f} -10 {-w:.1f} {h * 0.4:.1f} {-w:.1f} {h - 16:.1f}",
             f"C{w:.1f} {h * 0.4:.1f} {w:.1f} -10 18 -20z"),
        )  # fmt: skip
        a.body(f"{outline[0]}A{w:.1f} 9 0 0 0 {w:.1f} {h - 16:.1f}{outline[1]}", "tube")
        a.line(f"M{-w:.1f} {h - 16:.1f}A{w:.1f} 9 0 0 0 {w:.1f} {h - 16:.1f}", 4, "dark")
    a.body(ellipse(*head, 7), "ball", metal)


def _legs(a: Art, x: float, top: float, foot: float) -> None:
    """Two short tapered legs at ``x`` and ``-x``."""
    tone, splay = a.pick("wood", "dark wood", "black", "gold"), a.vary(0, 6)
    for side in (-1, 1):
        tip = side * (x + splay)
        a.body(poly((side * x - 6, top), (side * x + 6, top), (tip + 3, foot), (tip - 3, foot)), "tube", tone)


def _seating(a: Art, half: float, cushions: int, top: float, foot: float) -> None:
    """A padded seat from the front: legs, back, ``cushions`` side by side, front and arms."""
    arm, base = a.vary(22, 29), foot - a.vary(15, 22)
    seat = base - a.vary(50, 58)
    inner, rise, bend = half - arm, a.vary(22, 34), a.vary(10, 26)
    _legs(a, half - 14, base - 4, foot)
    back, crown = inner + arm * 0.55, a.vary(0, 14)
    a.body(
        f"M{-back:.1f} {seat + 30:.1f}V{top + bend:.1f}Q{-back:.1f} {top:.1f} {-back + bend:.1f} {top:.1f}"
        f"Q0 {top - crown:.1f} {back - bend:.1f} {top:.1f}Q{back:.1f} {top:.1f} {back:.1f} {top + bend:.1f}V{seat + 30:.1f}z"
    )
    width, tufted = 2 * inner / cushions, a.coin(0.4)
    for x in (-inner + i * width for i in range(cushions)):
        if not tufted:
            a.body(rect(x + 1, top + 9, width - 2, seat - top + 4, 14))
            continue
        for row, shift in ((0.3, 0.25), (0.3, 0.75), (0.66, 0.5)):
            y = top + (seat - top) * row
            a.shadow(ellipse(x + width * shift + 1, y + 2, 7, 6), 0.14)
            a.body(ellipse(x + width * shift, y, 3.4), "ball", "plain")
    a.shadow(rect(-inner, seat - 9, 2 * inner, 14, 5), 0.25)
    a.body(rect(-inner - 4, seat + 16, 2 * inner + 8, base - seat - 16, 4))
    a.shadow(rect(-inner, seat + 32, 2 * inner, 8, 3), 0.35)
    for x in (-inner + i * width for i in range(cushions)):
        a.body(rect(x, seat, width, 35, 10), "bar")
        a.gloss(rect(x + 3, seat + 2, width - 6, 14, 7), 0.2)
        a.line(f"M{x + 6:.1f} {seat + 17:.1f}h{width - 12:.1f}", 1.6, "dark", 0.75)
    roll = a.pick(7, arm / 2)
    for x in (-half, half - arm):
        y, h = seat - rise + 8, base - seat + rise - 6
        a.shadow(rect(x + (5 if x < 0 else -5), y + 6, arm, h - 8, roll), 0.22)
        a.body(rect(x, y, arm, h, roll), "tube")
        a.line(rect(x + 4, y + 4, arm - 8, h - 8, roll - 3), 1.5, "dark", 0.6)


@product("armchair", "home", synonyms=("easy chair", "lounge chair"), materials=("velvet", "leather", "boucle"))
def armchair(a: Art) -> None:
    _seating(a, a.vary(76, 88), 1, a.vary(-91, -78), 97)


@product("sofa", "home", synonyms=("couch", "settee"), materials=("velvet", "linen", "leather"))
def sofa(a: Art) -> None:
    _seating(a, 99, a.pick(2, 3), a.vary(-62, -50), a.vary(56, 64))


@product("throw cushion", "home", synonyms=("throw pillow", "scatter cushion"), materials=("cotton", "velvet", "linen"))
def throw_cushion(a: Art) -> None:
    w, h, pinch = a.vary(70, 78), a.vary(58, 76), a.vary(7, 12)
    trim = a.pick("tassels", "pompoms", "piping")
    q = pinch * 0.75
    outline = _joined(
        ((-w, -h), (-w * 0.5, -h + q), (0, -h + pinch), (w * 0.5, -h + q), (w, -h)),
        ((w, -h), (w - q, -h * 0.5), (w - pinch, 0), (w - q, h * 0.5), (w, h)),
        ((w, h), (w * 0.5, h - q), (0, h - pinch), (-w * 0.5, h - q), (-w, h)),
        ((-w, h), (-w + q, h * 0.5), (-w + pinch, 0), (-w + q, -h * 0.5), (-w, -h)),
    )
    with a.group(rotate=a.vary(-7, 7), scale=1.1 if trim == "piping" else 1):
        if trim == "tassels":
            for x, y in ((-w, -h), (w, -h), (-w, h), (w, h)):
                with a.group(at=(x, y), rotate=-45 * (1 if x * y > 0 else -1) + (180 if y < 0 else 0)):
                    a.body(poly((-2, -4), (2, -4), (7, 15), (-7, 15)), "tube", "light")
                    a.body(ellipse(0, 0, 4), "ball", "light")
        elif trim == "pompoms":
            a.line(outline, 12.4, "dark", 0.8, "0.1 13")
            a.line(outline, 10.5, "light", 1, "0.1 13")
        a.body(outline, "ball")
        a.line(outline, 3.2, "dark" if trim == "piping" else "light")
        for x, y in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
            a.line(smooth((x * w * 0.9, y * h * 0.9), (x * w * 0.72, y * h * 0.77), (x * w * 0.58, y * h * 0.55),
                          closed=False), 2.4, "black", 0.22)  # fmt: skip
        if a.coin(0.4):
            a.shadow(ellipse(0, 2, 20, 15), 0.14)
            a.body(ellipse(0, 0, 8), "ball", "light")


def _leaf(a: Art, at: tuple[float, float], angle: float, length: float, width: float) -> None:
    """A leaf growing from ``at``, upright at angle 0, with its rib."""
    with a.group(at=at, rotate=angle):
        a.body(_turned((0, -length), (width, -length * 0.45), (0, 0)), "flat", "leaf")
        a.line(f"M0 0L0 {-length * 0.85:.1f}", 1.3, "cream", 0.5)


def _blossom(a: Art, x: float, y: float, r: float, tone: str) -> None:
    """A flower head with petals all around."""
    a.body(_wavy(x, y, r, a.pick(5, 6, 8), 0.42, a.vary(0, 1)), "ball", tone)
    a.body(ellipse(x, y, r * 0.33), "ball", "gold")


@product("flower vase", "home", synonyms=("vase",), materials=("porcelain", "glass", "stoneware"))
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
    a.body(_turned((lip, top), *((x, top + h * k) for x, k in belly), (foot, 96)), "ball")
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


@product("wall clock", "home", synonyms=("kitchen clock",), materials=("wood", "plastic", "metal"))
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


@product("alarm clock", "home", synonyms=("bedside clock", "twin bell clock"), materials=("metal", "brass", "steel"))
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


@product(
    "plant pot", "home", synonyms=("flower pot", "planter", "potted plant"), materials=("terracotta", "ceramic", "clay")
)
def plant_pot(a: Art) -> None:
    top, w = a.vary(-10, 2), a.vary(56, 66)
    foot = w * a.vary(0.62, 0.8)
    saucer = a.coin(0.5)
    base = 82 if saucer else 90
    if saucer:
        a.body(_drum(84, 91, foot + 16, foot + 8, 7), "tube", "dark")
        a.body(ellipse(0, 84, foot + 16, 7), "flat", "plain")
    shape = a.pick("rim", "round", "straight")
    a_top = top + (18 if shape == "rim" else 0)
    if shape == "round":
        a.body(_turned((w, top), (w * 1.12, top + 34), (w * 0.98, top + 66), (foot, base + 5)), "ball")
    else:
        a.body(_drum(a_top, base, w - 5 if shape == "rim" else w, foot, 8), "tube")
    if shape == "rim":
        a.shadow(_drum(a_top, a_top + 6, w - 5, w - 6, 8), 0.25)
        a.body(_drum(top, a_top, w + 3, w + 1, 9), "tube")
        w += 3
    a.body(ellipse(0, top, w, 10), "flat", "light")
    a.fill(ellipse(0, top + 1.5, w - 5, 7), "soil")
    _foliage(a, top)


@product("candle", "home", synonyms=("pillar candle", "scented candle"), materials=("beeswax", "soy wax", "paraffin"))
def candle(a: Art) -> None:
    w, top = a.vary(42, 56), a.vary(-34, -16)
    base, metal = 82, a.pick("gold", "steel", "wood", "glass")
    ry = w * 0.2
    plate = w + a.vary(18, 30)
    a.body(_drum(base - 2, base + 5, plate, plate * 0.82, plate * 0.14), "tube", metal)
    a.body(ellipse(0, base - 2, plate, plate * 0.14), "flat", metal)
    a.shadow(ellipse(5, base, w + 6, ry * 0.85), 0.3)
    a.body(_drum(top, base - 6, w, w, ry), "tube")
    if a.coin(0.5):
        drops = [(-w, 0), (-w, a.vary(20, 40)), (-w * 0.72, a.vary(34, 52)), (-w * 0.46, 14), (-w * 0.16, a.vary(26, 66)),
                 (w * 0.14, 16), (w * 0.45, a.vary(20, 36)), (w * 0.7, 12), (w, a.vary(24, 44)), (w, 0)]  # fmt: skip
        with a.group(clip=_drum(top, base - 6, w, w, ry)):
            a.body(smooth(*((x, top + y) for x, y in drops)), "flat", "light")
    else:
        a.body(_drum(base - 40, base - 24, w + 0.6, w + 0.6, ry), "tube", a.pick("light", "dark"))
    a.body(ellipse(0, top, w, ry), "flat", "light")
    a.body(ellipse(0, top + 1.5, w * 0.7, ry * 0.6), "flat", "plain")
    a.line(f"M0 {top + 2:.1f}q-2 -8 1 -15", 3, "black")
    f = a.vary(0.9, 1.1)
    with a.group(at=(0, top - 8), scale=f):
        a.fill(ellipse(0, -18, 27, 31), "gold", 0.13)
        a.body(_turned((0, -48), (8, -27), (12, -11), (0, 3)), "flat", "gold")
        a.fill(_turned((0, -33), (6, -12), (0, 0)), "cream", 0.95)


@product("bar stool", "home", synonyms=("counter stool", "high stool"), materials=("oak", "steel", "faux leather"))
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
    a.body(_drum(seat, under, w, w - 3, ry), "tube")
    a.line(
        f"M{-w + 1:.1f} {seat + thick * 0.6:.1f}A{w - 1:.1f} {ry:.1f} 0 0 0 {w - 1:.1f} {seat + thick * 0.6:.1f}",
        2,
        "dark",
    )
    a.body(ellipse(0, seat, w, ry), "ball")


@product("bucket", "home", synonyms=("pail", "cleaning bucket"), materials=("plastic", "galvanised steel", "zinc"))
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
