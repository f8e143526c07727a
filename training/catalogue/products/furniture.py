"""Lamps, seats and cushions."""

from __future__ import annotations

from training.catalogue.art import Art, drum, ellipse, joined, poly, rect, smooth, turned


def _foot(a: Art, y: float, rx: float, thick: float, tone: str) -> None:
    """A round standing plate whose lowest edge lies at about ``y``."""
    ry = rx * 0.2
    a.body(drum(y - ry - thick, y - ry, rx, rx, ry), "tube", tone)
    a.body(ellipse(0, y - ry - thick, rx, ry), "flat", tone)


def _shade(a: Art, top: float, bottom: float, rt: float, rb: float) -> None:
    """A lampshade with trimmed edges, a bulb's glow at its foot and the dark opening below."""
    ry = rb * 0.13
    a.body(ellipse(0, bottom, rb, ry), "flat", "cream")
    a.body(drum(top, bottom - ry * 0.2, rt, rb, ry), "tube")
    trim = a.pick("dark", "accent", "gold")
    bow = ry * rt / rb
    a.line(f"M{-rb:.1f} {bottom - ry * 0.2:.1f}A{rb:.1f} {ry:.1f} 0 0 0 {rb:.1f} {bottom - ry * 0.2:.1f}", 3, trim)
    a.body(ellipse(0, top, rt, bow), "flat", "cream")
    a.shadow(ellipse(0, top + 0.6, rt - 3, max(bow - 1.6, 1)), 0.4)
    a.line(ellipse(0, top, rt, bow), 2.2, trim)


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


def table_lamp(a: Art) -> None:
    rb, bottom = a.vary(64, 78), a.vary(-8, 6)
    rt = rb * a.vary(0.48, 0.85)
    metal = a.pick("gold", "steel")
    a.body(rect(-5, bottom - 10, 10, 40, 2), "tube", metal)
    neck, base, w = bottom + 16, 86, a.vary(32, 44)
    h = base - neck
    outline = a.pick(
        turned((9, neck), (w, neck + h * 0.5), (18, base)),
        turned((9, neck), (12, neck + h * 0.3), (w, neck + h * 0.75), (w * 0.7, base)),
        turned((8, neck), (w * 0.9, neck + h * 0.22), (w * 0.85, neck + h * 0.5), (17, base)),
    )
    _foot(a, 98, a.vary(34, 42), 5, a.pick("wood", "dark wood", metal))
    a.body(outline, "ball")
    a.body(rect(-12, neck - 5, 24, 8, 3), "tube", metal)
    a.gloss(ellipse(-w * 0.4, neck + h * 0.5, 4, 9), 0.4)
    a.body(ellipse(0, -96, 4.5), "ball", metal)
    _shade(a, -90, bottom, rt, rb)


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


def armchair(a: Art) -> None:
    _seating(a, a.vary(76, 88), 1, a.vary(-91, -78), 97)


def sofa(a: Art) -> None:
    _seating(a, 99, a.pick(2, 3), a.vary(-62, -50), a.vary(56, 64))


def throw_cushion(a: Art) -> None:
    w, h, pinch = a.vary(70, 78), a.vary(58, 76), a.vary(7, 12)
    trim = a.pick("tassels", "pompoms", "piping")
    q = pinch * 0.75
    outline = joined(
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
