"""Toys."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin

from training.catalogue.art import Art, Point, ellipse, poly, rect, smooth


def _round(cx: float, cy: float, r: float, degrees: float) -> Point:
    """A point of a circle, clockwise from the right."""
    return cx + r * cos(degrees * pi / 180), cy + r * sin(degrees * pi / 180)


def _star(cx: float, cy: float, r: float) -> str:
    return poly(*(_round(cx, cy, r * (0.45 if i % 2 else 1), 36 * i - 90) for i in range(10)))


def _heart(cx: float, cy: float, r: float) -> str:
    p = ((0, -0.45), (0, -0.45), (0.5, -0.85), (1, -0.5), (0.85, 0.15), (0, 0.95), (0, 0.95), (-0.85, 0.15), (-1, -0.5),
         (-0.5, -0.85))  # fmt: skip
    return smooth(*((cx + r * x, cy + r * y) for x, y in p))


def _wheel(a: Art, x: float, y: float, r: float, tyre: str, hub: str, spokes: int = 0) -> None:
    a.body(ellipse(x, y, r), "ball", tyre)
    a.body(ellipse(x, y, r * 0.62), "soft", hub)
    if spokes:
        ends = (_round(x, y, r * 0.56, 360 * i / spokes + 20) for i in range(spokes))
        a.line("".join(poly((x, y), end, closed=False) for end in ends), r * 0.1, tyre, 0.8)
    a.body(ellipse(x, y, r * 0.2), "ball", "steel")


SIGNS: dict[str, Callable[[float, float, float], str]] = {"star": _star, "heart": _heart, "ring": ellipse}


def teddy_bear(a: Art) -> None:
    head, belly, ear, spread = a.vary(40, 46), a.vary(36, 44), a.vary(14, 19), a.vary(0, 14)
    snout = a.pick("cream", "light")
    for s in (-1, 1):
        a.body(ellipse(s * head * 0.78, -86 + ear * 0.6, ear), "ball")
        a.fill(ellipse(s * head * 0.78, -85 + ear * 0.7, ear * 0.55), snout)
    a.body(ellipse(0, 36, belly, 48), "ball")
    a.fill(ellipse(0, 40, belly * 0.56, 30), snout, 0.55)
    for s in (-1, 1):
        with a.group(at=(s * (belly * 0.92 + 4), 18), rotate=-s * (24 + spread * 1.6)):
            a.body(ellipse(0, 8, 15, 30), "ball")
        with a.group(at=(s * (belly * 0.7 + 16), 70), rotate=s * (8 + spread)):
            a.body(ellipse(0, 0, 23, 25), "ball")
            a.body(ellipse(0, 3, 14, 16), "soft", snout)
    a.body(ellipse(0, -44, head * 1.08, head), "ball")
    a.body(ellipse(0, -32, head * 0.46, head * 0.36), "ball", snout)
    a.fill(smooth((-9, -42), (0, -44), (9, -42), (0, -34)), "black")
    a.line("M0 -36v7M-9 -26q5 5 9 -3q4 8 9 3", 2.2, "black", 0.85)
    for s in (-1, 1):
        a.fill(ellipse(s * head * 0.42, -55, 5), "black")
        a.fill(ellipse(s * head * 0.42 - 1.6, -57, 1.6), "white")
    if a.coin(0.7):
        bow = a.pick("dark", "gold", "accent")
        for s in (-1, 1):
            a.body(poly((0, -2), (s * 24, -13), (s * 26, 11)), "soft", bow)
        a.body(rect(-6, -9, 12, 14, 4), "ball", bow)


def toy_car(a: Art) -> None:
    kind, r, hub = a.pick("beetle", "pickup", "wagon"), a.vary(23, 28), a.pick("light", "white", "gold", "wood")
    top, sill = a.vary(-58, -48), 42
    roofs: dict[str, tuple[Point, ...]] = {
        "beetle": ((-62, -6), (-44, top * 0.75), (-8, top), (32, top * 0.72), (56, -4)),
        "pickup": ((-30, -6), (-18, top), (-18, top), (22, top), (22, top), (44, -6)),
        "wagon": ((-84, -6), (-78, top), (-78, top), (20, top), (20, top), (48, -6)),
    }
    roof = roofs[kind]
    back, front = roof[0][0], roof[-1][0]
    a.body(smooth(*roof[:1], *roof, *roof[-1:], (front, 6), (front, 6), (back, 6), (back, 6)), "soft")
    mid, cx = (back + front) / 2 - 2, (back + front) / 2
    with a.group(at=(cx * 0.26, -1.5), scale=(0.74, 0.76)):
        glass = smooth(*roof[:1], *roof, *roof[-1:])
        a.body(glass, "flat", "glass")
        a.gloss(poly((mid - 26, -6), (mid - 10, top), (mid + 2, top), (mid - 14, -6)), 0.5)
    a.body(rect(mid - 4, top * 0.8, 7, -top * 0.8, 0), "soft", "plain")
    bed = 6.0 if kind == "beetle" else 0.0
    a.body(
        smooth((-94, 26), (-92, -4 + bed), (-80, -10 + bed), (back, -10), (front, -10), (80, -4), (95, 10), (95, sill),
               (95, sill), (-94, sill), (-94, sill)),
        "bar",
    )  # fmt: skip
    a.line(f"M{mid} -6V34M{mid + 30} 2h9", 1.8, "dark", 0.8)
    a.body(rect(-97, 32, 194, 12, 6), "bar", a.pick("steel", "grey", "white"))
    a.body(ellipse(86, 12, 8), "ball", "cream")
    a.body(rect(-94, 6, 8, 14, 3), "soft", "gold")
    for x in (-52, 52):
        a.shadow(f"M{x - r - 6} {sill}a{r + 6} {r + 4} 0 0 1 {2 * r + 12} 0z", 0.55)
        _wheel(a, x, sill + 6, r, "rubber", hub)


def rubber_duck(a: Art) -> None:
    head, tail, hx = a.vary(36, 43), a.vary(-30, -8), a.vary(20, 32)
    a.body(
        smooth((hx - 26, -14), (-20, 2), (-58, 4), (-94, tail), (-96, tail + 4), (-88, 44), (-56, 82), (0, 90),
               (54, 80), (76, 40), (hx + 34, -12)),
        "ball",
    )  # fmt: skip
    a.body(ellipse(hx, -50, head), "ball")
    a.shadow(smooth((hx - 28, -22), (hx, -10), (hx + 30, -20), (hx, -15)), 0.2)
    wing = a.vary(0.9, 1.12)
    with a.group(at=(-14, 38), scale=wing, rotate=a.vary(-8, 8)):
        a.body(smooth((36, -18), (34, 10), (6, 28), (-26, 20), (-52, -16), (-52, -16), (-20, -20), (10, -26)), "soft")
        a.line("M-52 -16Q-44 12 -24 21Q-4 30 10 28", 3.2, "dark", 0.75)
        a.line("M-34 -6Q-18 13 4 13M-18 -8Q-6 3 10 2", 2.6, "dark", 0.6)
    bx, by = hx + head * 0.8, -48
    a.body(smooth((bx - 6, by), (bx - 6, by), (bx + 14, by + 4), (bx + 26, by + 8), (bx + 14, by + 20), (bx - 5, by + 16)),
           "soft", "leather")  # fmt: skip
    a.body(smooth((bx - 8, by + 4), (bx - 4, by - 9), (bx + 12, by - 8), (bx + 34, by - 7), (bx + 30, by + 4), (bx + 10, by + 8)),
           "soft", "wood")  # fmt: skip
    a.fill(ellipse(hx + 13, -64, 7.5, 9.5), "white")
    a.fill(ellipse(hx + 15, -63, 5, 7), "black")
    a.fill(ellipse(hx + 13.5, -66, 1.9), "white")
    a.gloss(ellipse(hx - head * 0.4, -50 - head * 0.42, 8, 6), 0.5)
    if a.coin(0.5):
        a.line(f"M{hx - 6} {-47 - head}q-4 -6 -12 -5M{hx + 1} {-47 - head}q0 -6 -6 -8", 4, "plain")


def kite(a: Art) -> None:
    w, top, cross, low = a.vary(62, 74), -98, a.vary(-50, -36), a.vary(46, 56)
    tail = ((0, low - 2), (-22, low + 14), (16, low + 28), (40, 92))
    with a.group(rotate=a.vary(-9, 9), scale=0.96):
        a.line(smooth(*tail, closed=False), 2.4, "grey")
        for i, (x, y) in enumerate(tail[1:]):
            with a.group(at=(x, min(y, 88)), rotate=35 * (-1) ** i):
                a.body(poly((-14, -7), (14, 7), (14, -7), (-14, 7)), "flat", a.pick("plain", "light", "gold"))
        left, right, head, foot, hub = (-w, cross), (w, cross), (0, top), (0, low), (0, cross)
        a.body(poly(head, right, foot, left), "soft")
        a.fill(poly(head, right, hub), a.pick("light", "dark"), 0.6)
        a.fill(poly(foot, left, hub), a.pick("light", "dark"), 0.6)
        if a.coin(0.5):
            a.body(ellipse(0, cross + 6, w * 0.3), "soft", "accent")
        a.shadow(poly((0, top), (w, cross), (0, low)), 0.12)
        a.line(poly(head, foot, closed=False), 3.4, "wood")
        a.line(f"M{-w} {cross}Q0 {cross - 8} {w} {cross}", 3.4, "wood")
        a.line(poly(head, right, foot, left), 2.6, "dark", 0.8)
        a.body(ellipse(0, cross - 3, 4), "ball", "steel")


def beach_ball(a: Art) -> None:
    r, gores = 96.0, a.pick(6, 8)
    px, py, start, bend = a.vary(-34, -14), a.vary(-40, -22), a.vary(0, 60), a.vary(14, 24)
    other = a.pick("white", "cream", "glass")
    step = 360 / gores
    a.body(ellipse(0, 0, r), "flat")

    def seam(degrees: float) -> tuple[Point, Point]:
        (x, y), far = _round(px, py, r * 0.6, degrees - bend), _round(0, 0, r * 1.02, degrees)
        return (x, y), far

    with a.group(clip=ellipse(0, 0, r)):
        for i in range(0, gores, 2):
            (c1, e1), (c2, e2) = seam(start + i * step), seam(start + i * step + step * 0.84)
            mx, my = _round(0, 0, r * 1.35, start + (i + 0.42) * step)
            a.body(
                f"M{px} {py}Q{c1[0]} {c1[1]} {e1[0]} {e1[1]}L{mx} {my}L{e2[0]} {e2[1]}Q{c2[0]} {c2[1]} {px} {py}z",
                "flat", other,
            )  # fmt: skip
    a.body(ellipse(px, py, 14, 13), "soft", "plain")
    a.line(ellipse(px + 1, py + 1, 5), 2, "white", 0.8)
    a.body(ellipse(0, 0, r), "ball", "glass", 0.01)
    a.shadow(
        f"M{-r * 0.72} {r * 0.69}A{r} {r} 0 0 0 {r * 0.69} {-r * 0.72}A{r * 1.25} {r * 1.25} 0 0 1 {-r * 0.72} {r * 0.69}z",
        0.2,
    )
    a.gloss(smooth((-78, -12), (-66, -46), (-40, -72), (-50, -52), (-66, -28)), 0.6)


def _cube(a: Art, x: float, y: float, s: float, front: str, sign: str) -> None:
    """A wooden cube from its front face's upper left corner, with a sign on the face."""
    d = s * 0.22
    a.body(
        poly((x, y), (x + d, y - d), (x + s + d, y - d), (x + s, y)), "flat", "cream" if front != "main" else "light"
    )
    a.body(poly((x + s, y), (x + s + d, y - d), (x + s + d, y + s - d), (x + s, y + s)), "flat", "dark")
    a.body(rect(x, y, s, s, 2), "soft", front)
    a.line(rect(x + 5, y + 5, s - 10, s - 10, 3), 2, "dark" if front != "main" else "light", 0.7)
    shape = SIGNS[sign](x + s / 2, y + s / 2, s * 0.27)
    a.body(shape, "flat", "plain" if front != "main" else "cream")


def building_blocks(a: Art) -> None:
    s, gap = a.vary(60, 66), a.vary(6, 14)
    left, base = -s - gap - 2, 96 - s
    signs = [("star", "heart", "ring")[(i + a.pick(0, 1, 2)) % 3] for i in range(3)]
    with a.group(at=(-4, 0)):
        _cube(a, left, base, s, "main", signs[0])
        _cube(a, left + s + 2 * gap, base, s, a.pick("main", "wood"), signs[1])
        x, y = -s / 2 + a.vary(-8, 8), base - s
        _cube(a, x, y, s, "main", signs[2])
        kind, d = a.pick("roof", "arch", "ball"), s * 0.22
        if kind == "roof":
            a.body(
                poly((x + s / 2, y - 48), (x + s / 2 + d, y - 48 - d), (x + s + d, y - d), (x + s, y)), "flat", "dark"
            )
            a.body(poly((x, y), (x + s / 2, y - 48), (x + s, y)), "soft", "wood")
        elif kind == "arch":
            a.body(
                poly((x, y - 36), (x + d, y - 36 - d), (x + s + d, y - 36 - d), (x + s + d, y - d), (x + s, y)),
                "flat",
                "leather",
            )
            a.body(f"M{x} {y}v-36h{s}v36h{-s * 0.2}a{s * 0.3} 24 0 0 0 {-s * 0.6} 0z", "soft", "wood")
        else:
            a.body(rect(x + s * 0.24, y - 44, s * 0.62, 42, 0), "tube", "wood")
            a.body(ellipse(x + s * 0.55, y - 44, s * 0.31, 7), "flat", "cream")


def rocking_horse(a: Art) -> None:
    nod, hair, wood = a.vary(0, 6), a.pick("cream", "leather", "dark wood"), a.pick("wood", "dark wood", "dark")
    saddle, sag = a.pick("leather", "gold", "dark"), a.vary(84, 91)
    for x, foot in ((26, 40), (-30, -42)):
        a.body(poly((x - 11, 4), (x + 11, 4), (foot + 6, 76), (foot - 6, 76)), "flat", "dark")
    tail = a.vary(40, 58)
    a.body(smooth((-48, -22), (-66, -26), (-84, 0), (-92, tail), (-76, tail - 12), (-64, 8), (-50, -4)), "soft", hair)
    for x, foot in ((32, 58), (-34, -58)):
        a.body(poly((x - 16, 0), (x + 16, 0), (foot + 7, 78), (foot - 8, 78)), "flat")
    a.body(
        smooth((38, -90 + nod), (64, -78 + nod), (86, -50 + nod), (86, -38 + nod), (72, -34 + nod), (54, -46 + nod),
               (52, -20), (50, 6), (32, 22), (0, 25), (-32, 22), (-54, 4), (-52, -18), (-34, -28), (-4, -20), (14, -30),
               (22, -64)),
        "soft",
    )  # fmt: skip
    a.body(poly((40, -84 + nod), (42, -99 + nod), (53, -84 + nod)), "soft")
    a.body(smooth((46, -94 + nod), (32, -98 + nod), (18, -80), (8, -54), (6, -30), (20, -36), (26, -48), (32, -62), (34, -78)),
           "soft", hair)  # fmt: skip
    a.line(f"M52 {-80 + nod}L54 {-46 + nod}M66 {-72 + nod}L68 {-36 + nod}M67 {-54 + nod}L22 -34", 2.8, saddle)
    a.fill(ellipse(60, -66 + nod, 4), "black")
    a.fill(ellipse(81, -46 + nod, 2), "black")
    a.line("M-10 -10V24", 5, saddle)
    a.body(smooth((-34, -30), (-20, -24), (0, -22), (14, -34), (17, -28), (10, 0), (-8, 4), (-26, -2)), "soft", saddle)
    a.line("M-26 -8Q-8 -2 9 -7", 1.4, "white", 0.6, "3 3")
    a.body(rect(-66, 60, 132, 7, 3), "bar", wood)
    a.tube(smooth((-93, 62), (-54, sag - 8), (0, sag), (54, sag - 8), (93, 62), closed=False), 11, wood)


def toy_train(a: Art) -> None:
    roof, cab, boiler = a.vary(-70, -58), a.vary(-32, -22), a.vary(-20, -12)
    trim, hub, stack = a.pick("gold", "steel", "cream"), a.pick("plain", "light", "wood"), a.vary(-72, -60)
    a.body(poly((56, 40), (80, 40), (98, 76), (60, 76)), "flat", "grey")
    a.line("M68 44L72 74M76 44L86 74", 2, "black", 0.7)
    a.body(poly((40, boiler + 4), (38, stack), (62, stack), (58, boiler + 4)), "tube", "black")
    a.body(poly((36, stack - 12), (64, stack - 12), (60, stack + 4), (40, stack + 4)), "tube", trim)
    a.body(smooth((-6, boiler + 8), (-6, boiler + 8), (-4, boiler - 12), (8, boiler - 20), (20, boiler - 12), (22, boiler + 8),
                  (22, boiler + 8)), "ball", trim)  # fmt: skip
    a.body(rect(cab - 4, boiler, 88 - cab, 44 - boiler, 6), "bar")
    a.body(rect(74, boiler - 4, 14, 52 - boiler, 5), "bar", "black")
    for x in (cab + 24, 44):
        a.body(rect(x, boiler - 1, 6, 44 - boiler, 1), "bar", trim)
    a.body(ellipse(92, boiler + 14, 6, 8), "ball", "cream")
    a.body(rect(-86, roof, cab + 86, 44 - roof, 3), "soft")
    width = (cab + 86) * 0.56
    wx = (-86 + cab) / 2 - width / 2
    a.body(rect(wx, roof + 14, width, 30, a.pick(3, 14)), "flat", "glass")
    a.line(rect(wx, roof + 14, width, 30, 4), 3, trim)
    a.body(rect(-97, roof - 10, cab + 108, 14, 7), "bar", "dark")
    a.body(rect(-94, 40, 176, 13, 3), "bar", "black")
    for x in (-62, -14):
        _wheel(a, x, 60, 26, "rubber", hub, 5)
    for x in (30, 64):
        _wheel(a, x, 69, 17, "rubber", hub)
    a.tube("M-62 66H30", 5, "steel")


def toy_boat(a: Art) -> None:
    deck, keel = a.vary(38, 46), a.vary(86, 94)
    if a.coin(0.65):
        mast, boom, lean = a.vary(-14, 4), a.vary(22, 28), a.vary(4, 14)
        a.tube(f"M{mast} {deck + 4}V-95", 6, "wood")
        a.body(
            f"M{mast + 5} -90Q{mast + 40 + lean} -40 {a.vary(76, 88)} {boom}Q{mast + 40} {boom + 7} {mast + 5} {boom}z",
            "soft",
        )
        a.body(f"M{mast - 5} -72Q{mast - 34} -30 {a.vary(-84, -72)} {boom}Q{mast - 36} {boom + 5} {mast - 5} {boom}z", "soft",
               a.pick("white", "light"))  # fmt: skip
        a.line(f"M{mast + 5} {boom - 30}h{42}M{mast + 5} {boom - 62}h22", 1.6, "dark", 0.5)
        a.body(poly((mast, -98), (mast - 22, -91), (mast, -84)), "flat", "dark")
    else:
        fx = a.vary(8, 20)
        a.body(rect(fx, -78, 24, 60, 2), "tube", "plain")
        a.body(rect(fx - 2, -82, 28, 16, 3), "tube", "black")
        a.body(rect(-46, -26, 100, deck + 30, 5), "soft", a.pick("white", "cream", "wood"))
        a.body(rect(-54, -34, 116, 11, 5), "bar", "dark")
        for x in (-26, 4, 34):
            a.body(ellipse(x, 4, 11), "flat", "glass")
            a.line(ellipse(x, 4, 11), 3.4, "gold")
        a.tube(f"M-70 {deck}V-50", 4, "wood")
        a.body(poly((-70, -52), (-70, -30), (-96, -41)), "flat", "plain")
    hull = smooth((-90, deck), (-90, deck), (0, deck + 6), (96, deck - 8), (96, deck - 8), (82, deck + 26), (58, keel), (58, keel),
                  (-62, keel), (-62, keel), (-82, deck + 28))  # fmt: skip
    a.body(hull, "bar")
    with a.group(clip=hull):
        a.fill(rect(-100, keel - 13, 200, 20), "dark")
    a.line(smooth((-91, deck), (0, deck + 6), (96, deck - 8), closed=False), 6, a.pick("wood", "dark", "dark wood"))
