"""Kitchen and table."""

from __future__ import annotations

import math

from training.catalogue.art import Art, ellipse, poly, rect, smooth, symmetric


def _dome(*right: tuple[float, float]) -> str:
    """A soft mirrored outline whose right half runs down through the points, cut off straight at the last one."""
    return smooth(*((-x, y) for x, y in reversed(right) if x != 0), *right, closed=False) + "z"


def _polar(radius: float, angle: float) -> tuple[float, float]:
    return radius * math.cos(angle), radius * math.sin(angle)


def mug(a: Art) -> None:
    w, h, taper = a.vary(44, 54), a.vary(100, 128), a.vary(0, 7)
    top, rim = -h / 2, a.vary(7, 10)
    reach = a.vary(28, 36)
    a.tube(
        smooth((w - 4, top + h * 0.2), (w + reach, top + h * 0.26), (w + reach, top + h * 0.62), (w - 8, top + h * 0.72),
               closed=False),
        a.vary(10, 14), "plain",
    )  # fmt: skip
    a.body(
        f"M{-w} {top}L{-w + taper} {-top - 8}Q{-w + taper} {-top} {-w + taper + 10} {-top + 3}"
        f"Q0 {-top + 9} {w - taper - 10} {-top + 3}Q{w - taper} {-top} {w - taper} {-top - 8}L{w} {top}z",
        "tube",
    )
    a.body(ellipse(0, top, w, rim), "flat", "light")
    a.shadow(ellipse(0, top + 1.5, w - 5, rim - 2.5), 0.55)
    if a.coin(0.4):
        a.fill(ellipse(0, top + 3.5, w - 9, rim - 4.5), "soil")


def teapot(a: Art) -> None:
    w, h = a.vary(52, 62), a.vary(42, 52)
    a.tube(smooth((w - 10, -18), (w + 32, -26), (w + 34, 18), (w - 8, 24), closed=False), 10, "plain")
    spout = smooth((-w + 14, 22), (-w - 14, 6), (-w - 26, -30), (-w - 36, -40), (-w - 26, -44), (-w - 14, -34),
                   (-w + 2, -10), (-w + 20, -14))  # fmt: skip
    a.body(spout, "flat", "plain")
    a.body(smooth(*symmetric((0, -h), (w * 0.6, -h * 0.82), (w, 4), (w * 0.72, h * 0.85), (0, h))), "ball")
    a.body(ellipse(0, -h + 6, w * 0.46, 8), "flat", "light")
    a.body(smooth(*symmetric((0, -h - 12), (w * 0.3, -h - 6), (w * 0.46, -h + 6))), "ball", "plain")
    a.body(ellipse(0, -h - 18, 8), "ball", a.pick("plain", "gold", "wood"))
    a.body(poly((-w * 0.5, h * 0.9), (w * 0.5, h * 0.9), (w * 0.42, h + 8), (-w * 0.42, h + 8)), "flat", "dark")
    a.gloss(ellipse(-w * 0.42, -h * 0.3, 9, 14), 0.35)


def cutting_board(a: Art) -> None:
    w, h, r = a.vary(42, 56), a.vary(58, 72), a.vary(6, 20)
    a.body(rect(-12, -h - 34, 24, 44, 10), "soft")
    a.body(rect(-w, -h, 2 * w, 2 * h, r), "soft")
    a.shadow(ellipse(0, -h - 20, 5.5), 0.75)
    a.line(rect(-w + 8, -h + 8, 2 * w - 16, 2 * h - 16, max(r - 6, 2)), 2.4, "dark", 0.6)


def frying_pan(a: Art) -> None:
    r, wall, grip = a.vary(56, 62), a.vary(6, 9), a.vary(8.5, 11)
    tip, turn = a.vary(146, 161), a.vary(40, 49)
    tone = a.pick("wood", "black", "dark wood")
    at = (-35, 29)
    a.body(ellipse(at[0], at[1] + wall, r - 2), "soft", "dark")
    with a.group(at=at, rotate=turn):
        a.body(poly((-9, -r + 6), (9, -r + 6), (5, -r - 22), (-5, -r - 22)), "tube", "steel")
        a.body(smooth((-grip * 0.62, -r - 16), (grip * 0.62, -r - 16), (grip * 0.8, -r - 40), (grip, -tip + 16),
                      (grip * 0.6, -tip), (-grip * 0.6, -tip), (-grip, -tip + 16), (-grip * 0.8, -r - 40)),
               "tube", tone)  # fmt: skip
        a.fill(ellipse(0, -tip + 13, 3, 5), "steel")
        a.fill(ellipse(0, -tip + 13, 1.8, 3.6), "black")
    a.body(ellipse(*at, r), "soft", a.pick("light", "plain", "steel"))
    with a.group(at=at, rotate=180):  # turned around, the ball is a hollow
        a.body(ellipse(0, 0, r - 4), "soft")
        a.body(ellipse(0, 0, r * a.vary(0.74, 0.8)), "flat")
    if a.coin():
        for k in (0.3, 0.5):
            a.line(ellipse(*at, r * k), 1.4, "dark", 0.45)
    with a.group(at=at, scale=r):
        a.gloss(smooth((-0.62, -0.08), (-0.44, -0.44), (0.02, -0.63), (-0.3, -0.26)), 0.28)


def cooking_pot(a: Art) -> None:
    w, h, dome = a.vary(60, 70), a.vary(76, 108), a.vary(20, 32)
    top, metal = (dome + 20 - h) / 2, a.pick("steel", "gold", "black")
    drop, base = a.vary(0.16, 0.24) * h, top + h
    for s in (-1, 1):
        a.tube(smooth((s * (w - 4), top + drop - 8), (s * (w + 22), top + drop - 7), (s * (w + 22), top + drop + 16),
                      (s * (w - 4), top + drop + 17), closed=False), 9, "plain")  # fmt: skip
    r = a.vary(12, 30)
    a.body(f"M{-w} {top}H{w}V{base - r}Q{w - 1} {base} {w - r} {base}H{r - w}Q{1 - w} {base} {-w} {base - r}z", "tube")
    a.shadow(rect(-w, top + 2, 2 * w, 6), 0.25)
    lid = a.pick("main", "main", "plain")
    a.body(f"M{-w} {top - 4}C{-w * 0.8} {top - dome * 1.25} {w * 0.8} {top - dome * 1.25} {w} {top - 4}z", "ball", lid)
    a.body(rect(-w - 4, top - 6, 2 * w + 8, 10, 5), "bar", metal if a.coin(0.6) else "light")
    a.body(rect(-5, top - dome - 10, 10, 14, 2), "tube", metal)
    a.body(rect(-15, top - dome - 20, 30, 13, 6.5), "bar", metal)
    a.gloss(rect(-w * 0.66, top + 16, 7, h * 0.55, 3.5), 0.3)


def kettle(a: Art) -> None:
    w, top, waist = a.vary(58, 66), a.vary(-30, -20), a.vary(0.74, 0.86)
    grip, knob = a.pick("black", "wood", "dark wood"), a.pick("black", "gold", "wood")
    arch = a.vary(-90, -84)
    a.tube(smooth((-w * 0.62, top + 24), (-w * 0.7, arch + 22), (-w * 0.34, arch), (w * 0.34, arch),
                  (w * 0.7, arch + 22), (w * 0.62, top + 24), closed=False), 6, "steel")  # fmt: skip
    a.tube(smooth((-w * 0.38, arch), (0, arch - 3), (w * 0.38, arch), closed=False), 14, grip)
    a.body(smooth((-96, top - 8), (-89, top - 1), (-w - 8, 8), (-w * 0.7, 44), (-w * 0.4, 6), (-w - 4, -10),
                  (-80, top - 16), closed=False) + "z", "flat", "plain")  # fmt: skip
    a.body(_dome((0, top), (w * 0.42, top + 3), (w * waist, top + 34), (w, 62), (w * 0.97, 77), (w * 0.9, 82)), "tube")
    a.body(rect(-w * 0.92, 78, w * 1.84, 12, 5), "bar", a.pick("steel", "dark"))
    a.body(_dome((0, top - 12), (w * 0.26, top - 7), (w * 0.44, top + 5)), "ball", "light")
    a.body(ellipse(0, top - 17, 9, 8), "ball", knob)
    a.gloss(smooth((-w * 0.5, 0), (-w * 0.36, 4), (-w * 0.5, 56), (-w * 0.68, 54)), 0.32)


def mixing_bowl(a: Art) -> None:
    w, ry, deep, foot = a.vary(86, 95), a.vary(17, 25), a.vary(84, 104), a.vary(0.36, 0.5)
    tools = a.coin(0.6)
    top = -deep / 2 + (26 if tools else 10)
    base = top + deep
    a.body(ellipse(0, top, w, ry), "soft", "light")
    with a.group(at=(0, top), rotate=180):
        a.body(ellipse(0, 0, w - 5, ry - 3.5), "soft", a.pick("light", "white", "plain"))
    if tools:
        with a.group(at=(14, top + 6), rotate=a.vary(28, 42)):
            for x in (18, 9, 0):
                a.line(smooth((0, -42), (-x, -14), (-x, 8), (x, 8), (x, -14), (0, -42), closed=False), 2.6, "grey")
            a.body(rect(-6, -88, 12, 50, 6), "tube", a.pick("wood", "black", "dark"))
    a.body(rect(-w * foot, base - 10, 2 * w * foot, 14, 4), "bar", "dark")
    front = f"M{-w} {top}A{w} {ry} 0 0 0 {w} {top}"
    a.body(f"{front}C{w * 0.98} {top + deep * 0.62} {w * 0.7} {base} {w * foot} {base}H{-w * foot}"
           f"C{-w * 0.7} {base} {-w * 0.98} {top + deep * 0.62} {-w} {top}z", "tube")  # fmt: skip
    a.line(front, 3.6, "light")
    a.gloss(smooth((-w * 0.72, top + 26), (-w * 0.6, top + 29), (-w * 0.38, base - 20), (-w * 0.5, base - 26)), 0.32)


def water_bottle(a: Art) -> None:
    w, neck, shoulder = a.vary(31, 39), a.vary(17, 23), a.vary(16, 36)
    top, cap = a.vary(-54, -46), a.pick("black", "steel", "plain", "wood")
    kind = a.pick("loop", "loop", "screw", "spout")
    lid = top + 96 if kind == "screw" else 28
    if kind == "loop":
        a.tube(smooth((-neck + 4, top - 18), (-neck + 1, -82), (0, -94), (neck - 1, -82), (neck - 4, top - 18),
                      closed=False), 7, "black" if cap == "wood" else cap)  # fmt: skip
    elif kind == "spout":
        a.body(rect(-8, -97, 16, 22, 4), "tube", "light")
        a.body(poly((-neck + 1, top - 22), (-11, -86), (11, -86), (neck - 1, top - 22)), "tube", cap)
    a.body(rect(-neck + 2, top - 8, 2 * neck - 4, 14), "tube", "steel")
    a.body(rect(-neck - 2, top - lid, 2 * neck + 4, lid - 6, 5), "tube", cap)
    for x in (-0.5, 0, 0.5):
        a.line(poly((neck * x, top - lid + 5), (neck * x, top - 12)), 1.6, "black", 0.3)
    a.body(f"M{-neck} {top}H{neck}C{neck + 2} {top + shoulder * 0.6} {w} {top + shoulder * 0.5} {w} {top + shoulder + 8}"
           f"V88Q{w} 97 {w - 9} 97H{9 - w}Q{-w} 97 {-w} 88V{top + shoulder + 8}"
           f"C{-w} {top + shoulder * 0.5} {-neck - 2} {top + shoulder * 0.6} {-neck} {top}z", "tube")  # fmt: skip
    if a.coin():
        a.body(f"M{-w} 74H{w}V88Q{w} 97 {w - 9} 97H{9 - w}Q{-w} 97 {-w} 88z", "tube", a.pick("dark", "steel", "rubber"))
    a.gloss(rect(-w * 0.62, top + shoulder + 8, 6, 70, 3), 0.35)


def pepper_mill(a: Art) -> None:
    w, waist, head = a.vary(33, 40), a.vary(17, 22), a.vary(27, 33)
    joint, metal = a.vary(-29, -20), a.pick("steel", "gold")
    crown = joint - a.vary(44, 50)
    a.body(ellipse(0, crown - 10, a.vary(8, 11)), "ball", metal)
    a.body(rect(-7, crown - 4, 14, 8, 2), "tube", metal)
    bulge = a.vary(0.7, 0.95) * w
    a.body(_dome((waist + 5, joint + 4), (bulge, joint + 24), (waist, 30), (w * 0.86, 70), (w, 81)), "tube")
    a.body(
        _dome((0, crown), (head * 0.6, crown + 3), (head, crown + 20), (waist, joint - 8), (waist + 5, joint)), "tube"
    )
    a.body(rect(-waist - 6, joint - 1, 2 * waist + 12, 7, 2), "tube", metal)
    a.body(rect(-w - 3, 78, 2 * w + 6, 19, 5), "tube", "plain")
    a.line(poly((-w - 1, 84), (w + 1, 84)), 2, "dark", 0.7)
    a.gloss(ellipse(-head * 0.45, crown + 18, 5, 9), 0.45)
    a.gloss(ellipse(-bulge * 0.5, joint + 24, 4.5, 10), 0.35)


def plate(a: Art) -> None:
    r, k = a.vary(90, 97), a.vary(0.6, 0.7)
    kind, edge = a.pick("round", "round", "scalloped", "octagon"), a.pick("light", "gold", "white", "dark", "accent")
    n = {"round": 0, "scalloped": a.pick(12, 16), "octagon": 8}[kind]

    def outline(size: float) -> str:
        if kind == "scalloped":
            angles = [math.tau * i / (4 * n) for i in range(4 * n)]
            return smooth(*(_polar(size * (0.975 + 0.025 * math.cos(n * t)), t) for t in angles))
        if kind == "octagon":
            return poly(*(_polar(size, math.tau * (i + 0.5) / n) for i in range(n)))
        return ellipse(0, 0, size)

    a.body(outline(r), "soft", "white" if edge == "accent" else edge)
    a.body(outline(r - 4), "soft")
    a.line(outline(r - 9), 1.6, "dark" if edge == "accent" else edge, 0.8)
    a.body(ellipse(0, 0, r * k + 3), "soft", "light")
    with a.group(rotate=180):
        a.body(ellipse(0, 0, r * k), "soft", a.pick("main", "main", "white", "light"))
    a.fill(ellipse(0, 0, r * k * 0.82), "light", 0.12)
    a.line(smooth(*(_polar(r * k * 0.88, math.radians(t)) for t in (10, 30, 50, 70)), closed=False), 3, "white", 0.5)
    a.line(smooth(*(_polar(r * (k + 1) / 2, math.radians(t)) for t in (200, 220, 240)), closed=False), 5, "white", 0.4)


def apron(a: Art) -> None:
    bib, w, flare = a.vary(28, 36), a.vary(60, 68), a.vary(0, 8)
    waist, strap, hem = a.vary(-20, -8), a.pick("plain", "dark", "leather"), a.vary(86, 94)
    a.tube(smooth((-bib + 4, -54), (-bib + 1, -80), (0, -94), (bib - 1, -80), (bib - 4, -54), closed=False), 6.5, strap)
    for s in (-1, 1):
        a.tube(smooth((s * (w - 4), waist + 4), (s * 82, waist + 6), (s * 92, waist + 26), (s * 86, waist + a.vary(44, 62)),
                      closed=False), 6, strap)  # fmt: skip
    r = a.vary(4, 26)
    a.body(f"M{-bib} -60H{bib}C{bib + 2} {waist - 18} {w - 14} {waist - 4} {w} {waist}L{w + flare} {hem - r}"
           f"Q{w + flare} {hem} {w + flare - r} {hem}H{r - w - flare}Q{-w - flare} {hem} {-w - flare} {hem - r}L{-w} {waist}"
           f"C{-w + 14} {waist - 4} {-bib - 2} {waist - 18} {-bib} -60z", "soft")  # fmt: skip
    for x in (-0.55, 0.62):
        a.shadow(poly((w * x - 4, hem - 1), (w * x, waist + 8), (w * x + 7, hem - 1)), 0.13)
    a.body(rect(-bib, -60, 2 * bib, 8), "flat", strap)
    a.line(poly((-w - flare + 5, hem - 5 - r * 0.3), (-w + 4, waist + 5), closed=False), 1.2, "dark", 0.6, "3 3")
    a.line(poly((w + flare - 5, hem - 5 - r * 0.3), (w - 4, waist + 5), closed=False), 1.2, "dark", 0.6, "3 3")
    pw, py, ph = a.vary(32, 42), waist + a.vary(20, 28), a.vary(34, 42)
    a.body(f"M{-pw} {py}H{pw}V{py + ph - 10}Q{pw} {py + ph} {pw - 10} {py + ph}H{10 - pw}Q{-pw} {py + ph} {-pw} "
           f"{py + ph - 10}z", "soft")  # fmt: skip
    a.body(rect(-pw - 1, py - 1, 2 * pw + 2, 7), "flat", strap)
    if a.coin(0.6):
        a.line(poly((0, py + 8), (0, py + ph - 2), closed=False), 1.6, "dark", 0.8, "4 3")


def oven_mitt(a: Art) -> None:
    s, w, top = a.pick(-1, 1), a.vary(40, 46), a.vary(-97, -90)
    thumb, cuff = a.vary(-30, -14), a.pick("white", "light", "dark", "cream")
    points = ((-w + 2, 66), (-w - 2, 10), (-w, -40), (-w * 0.72, top + 18), (-w * 0.05, top), (w * 0.62, top + 18),
              (w * 0.84, -40), (w * 0.8, -6), (w * 0.95, 2), (w + 12, thumb - 6), (w + 27, thumb - 12),
              (w + 36, thumb + 4), (w + 26, thumb + 40), (w, 52), (w - 2, 66))  # fmt: skip
    with a.group(at=(-13 * s, 0)):
        a.line(
            smooth((-s * (w - 10), 84), (-s * (w + 12), 88), (-s * (w + 6), 72), (-s * (w - 10), 74), closed=False),
            5,
            "dark",
        )
        outline = smooth(*((s * x, y) for x, y in points))
        a.body(outline, "soft")
        step = a.vary(24, 30)
        with a.group(clip=outline):
            for i in range(-4, 6):
                a.line(poly((-100, i * step - 90), (100, i * step + 90), closed=False), 1.3, "dark", 0.4)
                a.line(poly((-100, i * step + 90), (100, i * step - 90), closed=False), 1.3, "dark", 0.4)
            a.shadow(smooth((s * w * 0.8, -6), (s * w * 0.66, 16), (s * w * 0.4, 60), (s * w * 0.92, 10)), 0.28)
        a.line(outline, 3.5, "dark", 0.75)
        a.body(rect(-w - 4, 60, 2 * w + 8, 34, 8), "soft", cuff)
        a.line(poly((-w + 2, 67), (w - 2, 67), closed=False), 1.4, "black", 0.4, "4 3")
        a.line(poly((-w + 2, 87), (w - 2, 87), closed=False), 1.4, "black", 0.4, "4 3")


def toaster(a: Art) -> None:
    w, top, base, r = a.vary(82, 96), a.vary(-34, -24), a.vary(68, 76), a.vary(16, 40)
    trim, pop = a.pick("steel", "black", "steel"), a.vary(32, 46)
    if a.coin(0.85):
        for x in (-w * 0.4, w * 0.4):
            slice_ = _dome(
                (0, top - pop), (18, top - pop - 3), (30, top - pop + 8), (25, top - pop + 20), (25, top + 12)
            )
            with a.group(at=(x, 0)):
                a.body(slice_, "soft", "dark wood")
            with a.group(at=(x, top * 0.14 - 2), scale=(0.84, 0.9)):
                a.body(slice_, "flat", "cork")
    a.body(rect(-w * 0.86, top - 4, w * 1.72, 16, 5), "bar", "black")
    for x in (-w * 0.62, w * 0.42):
        a.body(rect(x, base - 6, w * 0.2, 14, 4), "tube", "black")
    a.body(f"M{r - w} {top}H{w - r}Q{w} {top} {w} {top + r}V{base - 10}Q{w} {base} {w - 10} {base}H{10 - w}"
           f"Q{-w} {base} {-w} {base - 10}V{top + r}Q{-w} {top} {r - w} {top}z", "soft")  # fmt: skip
    a.body(rect(-w, base - 15, 2 * w, 15, 6), "bar", trim)
    a.line(poly((w * 0.72, top + 26), (w * 0.72, base - 28), closed=False), 4, "black", 0.75)
    a.body(rect(w * 0.72 - 11, top + a.vary(24, 34), 22, 11, 4), "bar", "black")
    if a.coin(0.7):
        a.body(ellipse(w * 0.38, base - 32, 11), "ball", "steel")
        a.line(poly((w * 0.38, base - 32), (w * 0.38 + 5, base - 39), closed=False), 2.4, "black", 0.8)
    else:
        for y in (0, 12, 24):
            a.body(ellipse(w * 0.4, base - 50 + y, 4), "ball", "steel")
    a.gloss(rect(-w + 9, top + r * 0.7 + 4, 7, 44, 3.5), 0.4)


def wine_glass(a: Art) -> None:
    rim, w, stem = a.vary(40, 50), a.vary(50, 62), a.vary(48, 62)
    top, foot, base = -90, a.vary(38, 46), 84 - stem
    a.body(ellipse(0, 88, foot, 8.5), "tube")
    a.body(f"M-8 {base - 4}C-2 {base + 12} -4 76 -16 86Q0 91 16 86C4 76 2 {base + 12} 8 {base - 4}z", "tube", "plain")
    if a.coin(0.4):
        a.body(ellipse(0, base + stem * 0.4, 6.5, 5.5), "ball", a.pick("plain", "gold"))
    a.body(ellipse(0, top, rim, 7), "flat", "light", 0.75)
    wide = top + (base - top) * a.vary(0.5, 0.66)
    cup = (f"M{-rim} {top}A{rim} 7 0 0 0 {rim} {top}C{rim + 3} {top + 20} {w} {wide - 20} {w} {wide}"
           f"C{w} {base - 12} {w * 0.4} {base - 1} 0 {base}C{-w * 0.4} {base - 1} {-w} {base - 12} {-w} {wide}"
           f"C{-w} {wide - 20} {-rim - 3} {top + 20} {-rim} {top}z")  # fmt: skip
    a.body(cup, "tube", "main", 0.88)
    with a.group(clip=cup):
        a.shadow(ellipse(0, base + 4, w * 0.8, 22), 0.22)
        a.gloss(ellipse(w * 0.84, wide - 4, 4, 26), 0.3)
    a.line(f"M{-rim} {top}A{rim} 7 0 0 0 {rim} {top}", 2, "white", 0.7)
    a.gloss(smooth((-w * 0.7, top + 30), (-w * 0.52, top + 30), (-w * 0.56, wide + 10), (-w * 0.8, wide)), 0.5)
    a.gloss(ellipse(-foot * 0.45, 86, 9, 2.2), 0.5)
