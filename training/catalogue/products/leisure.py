"""Skateboards, musical instruments and balloons."""

from __future__ import annotations

from math import cos, pi, sin

from training.catalogue.art import Art, ellipse, poly, rect, smooth, symmetric
from training.catalogue.products.toys import SIGNS


def skateboard(a: Art) -> None:
    w, wheel, tone = a.vary(25, 30), a.vary(9, 12), a.pick("white", "cream", "accent", "gold")
    cruiser = a.coin(0.35)
    with a.group(rotate=a.vary(22, 42) * a.pick(-1, 1), scale=0.97):
        for y in (-56, 56):
            for s in (-1, 1):
                a.body(rect(s * (w + 1) - wheel / 2 - 1, y - 12, wheel + 2, 24, 5), "bar", tone)
        nose = w * 0.35 if cruiser else w * 0.72
        a.body(smooth(*symmetric((0, -100), (nose, -95), (w * 0.96, -72), (w, -30), (w * a.vary(0.94, 1.04), 20), (w, 68),
                                 (w * 0.74, 94), (0, 100))), "soft")  # fmt: skip
        if a.coin(0.6):
            a.body(a.pick(*SIGNS.values())(0, 0, w * 0.62), "flat", a.pick("light", "dark", "accent"))
        else:
            a.body(poly((-w + 2, 12), (w - 2, -14), (w - 2, 2), (-w + 2, 28)), "flat", a.pick("light", "dark"))
        for y in (-56, 56):
            a.body(rect(-10, y - 19, 20, 38, 4), "soft", "grey")
            for x, dy in ((-6, -15), (6, -15), (-6, 15), (6, 15)):
                a.fill(ellipse(x, y + dy, 1.8), "black")
            a.body(rect(-w + 1, y - 5, 2 * w - 2, 10, 4), "bar", "steel")
            a.body(ellipse(0, y, 8), "ball", "steel")
            for s in (-1, 1):
                a.body(rect(s * (w - 4) - wheel / 2, y - 11, wheel, 22, 4), "bar", tone)


def drum(a: Art) -> None:
    w, top, low, ry = a.vary(66, 80), a.vary(-36, -26), a.vary(52, 66), a.vary(20, 25)
    rim, rope, n = a.pick("gold", "steel", "dark", "wood"), a.pick("cream", "white", "black"), a.pick(3, 4)
    a.body(f"M{-w} {top}V{low}A{w} {ry} 0 0 0 {w} {low}V{top}z", "tube")
    down = [(w * cos(pi - pi * i / (2 * n)), sin(pi * i / (2 * n)) * ry) for i in range(2 * n + 1)]
    zigzag = [(x, y + (low - 6 if i % 2 else top + 8)) for i, (x, y) in enumerate(down)]
    a.line(poly(*((x + 1.5, y + 2) for x, y in zigzag), closed=False), 4, "black", 0.25)
    a.line(poly(*zigzag, closed=False), 3.6, rope)
    for y in (low - 10, top - 2):
        a.body(
            f"M{-w - 4} {y}v14A{w + 4} {ry + 2} 0 0 0 {w + 4} {y + 14}v-14A{w + 4} {ry + 2} 0 0 1 {-w - 4} {y}z",
            "tube",
            rim,
        )
    a.body(ellipse(0, top - 2, w + 4, ry + 2), "flat", rim)
    a.body(ellipse(0, top - 2, w - 2, ry - 2), "soft", a.pick("white", "cream"))
    reach = a.vary(-8, 4)
    for s in (-1, 1):
        tip, end = (-s * 22, top - 6 + 6 * s), (s * (82 + reach), top - 52 + reach)
        a.line(poly((tip[0], tip[1] + 8), (tip[0] + s * 44, top - 10), closed=False), 4, "black", 0.18)
        a.tube(poly(tip, end, closed=False), 6.5, "wood")
        a.body(ellipse(*tip, 8, 7), "ball", "wood")


def ukulele(a: Art) -> None:
    w, waist, up, neck = a.vary(40, 46), a.vary(0.62, 0.74), a.vary(0.74, 0.84), a.pick("wood", "dark wood")
    with a.group(rotate=a.vary(-38, 38), scale=0.97):
        for s in (-1, 1):
            for y in (-90, -77):
                a.body(rect(s * 15 - 4, y - 3.5, 8, 7, 3), "soft", "steel")
        a.body(poly((-12, -99), (0, -95), (12, -99), (13, -72), (7, -64), (-7, -64), (-13, -72)), "soft", neck)
        right = ((0, -10), (w * up * 0.7, -6), (w * up, 14), (w * waist, 34), (w * 0.96, 62), (w * 0.7, 92), (0, 99))
        corpus = smooth(*symmetric(*right))
        a.body(corpus, "soft")
        with a.group(at=(0, 4.4), scale=(0.9, 0.92)):
            a.line(corpus, 2.2, "cream", 0.85)
        a.body(ellipse(0, 30, 18), "flat", "cream")
        a.fill(ellipse(0, 30, 14.5), "soil")
        a.body(rect(-8, -67, 16, 87, 2), "flat", "dark wood")
        a.line("M-7 -54h14M-7 -42h14M-7 -31h14M-7 -21h14M-7 -12h14M-7 -4h14M-7 4h14", 1.5, "steel")
        a.body(rect(-18, 66, 36, 10, 3), "bar", "dark wood")
        a.line("M-5 -66L-7 70M-1.7 -66L-2.4 70M1.7 -66L2.4 70M5 -66L7 70", 1.1, "white", 0.9)
        a.line("M-8 -66h16", 2.6, "cream")
        a.line("M-13 70h26", 1.8, "cream")


def balloon(a: Art) -> None:
    heart, w, low, swing = a.coin(0.3), a.vary(54, 64), a.vary(36, 44), a.vary(8, 16) * a.pick(-1, 1)
    a.line(
        smooth((0, low + 8), (swing, low + 22), (-swing * 0.8, low + 36), (swing * 0.5, 97), closed=False), 2.4, "grey"
    )
    a.body(poly((0, low - 6), (9, low + 10), (0, low + 7), (-9, low + 10)), "soft", "dark")
    if heart:
        h, mid = low + 98, -98
        a.body(
            smooth(*symmetric((0, mid + h * 0.16), (0, mid + h * 0.16), (w * 0.5, mid + 2), (w * 1.1, mid + h * 0.2),
                              (w * 1.02, mid + h * 0.52), (w * 0.5, mid + h * 0.84), (0, low), (0, low))),
            "ball",
        )  # fmt: skip
    else:
        a.body(
            smooth(*symmetric((0, -98), (w * 0.72, -80), (w, -36), (w * 0.74, 6), (w * 0.24, low - 8), (0, low))),
            "ball",
        )
    a.line(f"M-6 {low + 1}Q0 {low + 4} 6 {low + 1}", 2.4, "dark")
    with a.group(at=(-w * 0.5, -56), rotate=28):
        a.gloss(ellipse(0, 0, 8, 17), 0.6)
        a.gloss(ellipse(1, 28, 4, 5), 0.45)
    a.gloss(smooth((w * 0.78, -20), (w * 0.6, 2), (w * 0.4, 18), (w * 0.52, 0)), 0.22)
