"""Electronics, bags and what else one carries along."""

from __future__ import annotations

from math import cos, pi, sin

from training.catalogue.art import Art, ellipse, poly, rect, smooth, symmetric
from training.catalogue.products import product


def _spokes(inner: float, outer: float, count: int, turn: float = 0) -> str:
    """Radial strokes around the origin as one path."""
    d = ""
    for i in range(count):
        x, y = cos(turn + 2 * pi * i / count), sin(turn + 2 * pi * i / count)
        d += f"M{inner * x:.2f} {inner * y:.2f}L{outer * x:.2f} {outer * y:.2f}"
    return d


@product("headphones", "electronics", synonyms=("headset", "over-ear headphones"),
         materials=("leatherette", "aluminium", "matte plastic"))  # fmt: skip
def headphones(a: Art) -> None:
    w, top, thick = a.vary(64, 70), a.vary(-98, -90), a.vary(19, 27)
    ch, cw, tilt = a.vary(42, 52), a.vary(38, 46), a.vary(4, 9)
    metal, pad = a.pick("steel", "gold", "grey"), a.pick("black", "leather", "rubber", "cream")
    for s in (-1, 1):
        a.tube(f"M{s * w:.1f} -14L{s * (w + 4):.1f} 38", 9, metal)
    i = w - thick * 0.62
    band = (f"M{-w - 5} 8C{-w - 16} {top - 16} {-w * 0.45} {top} 0 {top}S{w + 16} {top - 16} {w + 5} 8"
            f"L{i} 4C{i + 2} {top + 30} {i * 0.5} {top + thick} 0 {top + thick}S{-i - 2} {top + 30} {-i} 4z")  # fmt: skip
    if a.coin(0.3):
        s = a.pick(-1, 1)
        a.tube(smooth((s * (w + 2), 52), (s * (w - 4), 82), (s * 40, 94), (s * 14, 92), closed=False), 4, "rubber")
        a.body(ellipse(s * 12, 92, 11, 6.5), "ball", "black")
    inner = f"M{-i + 1} -24C{-i + 6} {top + 42} {-i * 0.45} {top + thick + 1} 0 {top + thick + 1}S{i - 6} {top + 42} {i - 1} -24"
    a.line(inner, a.vary(8, 12), pad)
    a.body(band, "soft")
    a.line(f"M{-w * 0.62} {top + 17}Q0 {top - 9} {w * 0.62} {top + 17}", 3, "white", 0.35)
    for s in (-1, 1):
        with a.group(at=(s * (w - 4), 42), rotate=-s * tilt, scale=(s, 1)):
            a.body(rect(-29, -ch + 3, 26, 2 * ch - 6, 13), "bar", pad)
            a.body(rect(-9, -ch - 1, 11, 2 * ch + 2, 5), "bar", metal)
            a.body(f"M0 {-ch}H8C{cw * 0.86} {-ch} {cw * 0.86} {ch} 8 {ch}H0z", "soft")
            a.line(f"M10 {-ch + 9}C{cw * 0.6} {-ch + 12} {cw * 0.6} {ch - 12} 10 {ch - 9}", 1.8, "dark", 0.7)
            a.gloss(ellipse(11, -ch * 0.48, 3.5, ch * 0.26), 0.35)


@product("digital camera", "electronics", synonyms=("camera", "photo camera"),
         materials=("magnesium alloy", "leatherette", "aluminium"))  # fmt: skip
def digital_camera(a: Art) -> None:
    w, h = a.vary(88, 97), a.vary(54, 63)
    r = (h - 14) * a.vary(0.86, 1)
    top, metal, lx = -h + 14, a.pick("steel", "steel", "grey", "black", "gold"), a.vary(4, 18)
    a.body(rect(-w + 16, top - 13, 26, 16, 4), "bar", metal)
    a.body(rect(w - 42, top - 10, 28, 12, 3), "tube", metal)
    hump = a.vary(28, 38)
    if a.coin(0.65):
        a.body(poly((lx - hump - 8, top + 3), (lx - hump * 0.6, top - 25), (lx + hump * 0.6, top - 25),
                    (lx + hump + 8, top + 3)), "soft")  # fmt: skip
        a.body(rect(lx - hump * 0.5, top - 18, hump, 12, 3), "flat", "glass")
    else:
        a.body(rect(lx - 24, top - 20, 48, 24, 5), "bar", metal)
        a.body(rect(lx - 15, top - 15, 30, 11, 3), "flat", "screen")
    a.body(rect(-w, top, 2 * w, 2 * h, a.vary(10, 20)), "soft")
    a.body(rect(-w + 1, top + 1, 2 * w - 2, 19, 9), "bar", metal)
    a.body(rect(-w + 3, top + 24, a.vary(24, 30), 2 * h - 34, 11), "tube", "rubber")
    a.body(ellipse(w - 22, top + 38, 7), "ball", a.pick("screen", "glass"))
    a.fill(ellipse(-w + 50, top + 10, 3), a.pick("gold", "white", "accent"))
    cy = top + h + 9
    a.shadow(ellipse(lx + 3, cy + 5, r + 5), 0.3)
    a.body(ellipse(lx, cy, r + 4), "soft", metal)
    a.body(ellipse(lx, cy, r - 1), "ball", "rubber")
    with a.group(at=(lx, cy)):
        a.line(_spokes(r - 7, r - 3, 36), 1.4, "grey", 0.7)
    a.body(ellipse(lx, cy, r - 9), "soft", "black")
    a.body(ellipse(lx, cy, r * 0.58), "ball", "screen")
    a.fill(ellipse(lx, cy, r * 0.3), "black", 0.8)
    a.gloss(ellipse(lx - r * 0.22, cy - r * 0.24, r * 0.17, r * 0.12), 0.85)
    a.gloss(ellipse(lx + r * 0.24, cy + r * 0.27, r * 0.08), 0.5)


@product("game controller", "electronics", synonyms=("gamepad", "joypad"),
         materials=("matte plastic", "rubber grip", "polycarbonate"))  # fmt: skip
def game_controller(a: Art) -> None:
    w, top, drop = a.vary(82, 92), a.vary(-54, -46), a.vary(62, 74)
    for s in (-1, 1):
        with a.group(scale=(s, 1)):
            a.body(smooth((28, top + 6), (36, top - 12), (w * 0.72, top - 8), (w * 0.84, top + 16)), "bar", "rubber")
    shell = symmetric((0, top), (38, top - 2), (w * 0.78, top + 6), (w, 0), (w + 6, drop * 0.62), (w - 8, drop),
                      (w - 26, drop - 12), (w * 0.46, 32), (0, 26))  # fmt: skip
    a.body(smooth(*shell), "soft")
    if a.coin():
        grip = smooth((w + 4, 26), (w + 6, drop * 0.62), (w - 8, drop), (w - 25, drop - 11), (w - 14, 40))
        for s in (-1, 1):
            with a.group(scale=(s, 1)):
                a.body(grip, "soft", "dark")
    if a.coin():
        a.body(rect(-21, top + 7, 42, 26, 5), "flat", a.pick("rubber", "white", "dark"))
    else:
        a.body(ellipse(0, top + 17, 10), "ball", a.pick("steel", "white", "gold"))
    for s in (-1, 1):
        a.fill(rect(s * 30 - 3, top + 10, 6, 11, 3), "rubber")
    px, py, low = w * 0.56, top + 38, a.coin()
    left, right = ((-px, py), (-30, 10)) if low else ((-32, 11), (-px, py))
    with a.group(at=left):
        a.fill(ellipse(0, 0, 20), "black", 0.18)
        a.body("M-5.5 -16h11v10.5h10.5v11h-10.5v10.5h-11v-10.5h-10.5v-11h10.5z", "flat", a.pick("rubber", "white"))
    for x, y in (right, (30, 10)):
        a.body(ellipse(x, y, 18), "flat", "black")
        a.body(ellipse(x, y - 1.5, 13), "ball", "rubber")
        a.line(ellipse(x, y - 1.5, 8.5), 1.6, "grey", 0.8)
    for x, y, tone in ((0, -12.5, "gold"), (12.5, 0, "cream"), (0, 12.5, "leaf"), (-12.5, 0, "glass")):
        a.body(ellipse(px + 2 + x, py + y, 7.5), "ball", tone)


@product("bluetooth speaker", "electronics", synonyms=("wireless speaker", "portable speaker"),
         materials=("woven fabric", "rubber", "aluminium"))  # fmt: skip
def bluetooth_speaker(a: Art) -> None:
    w, h, r = a.vary(56, 72), a.vary(80, 91), a.vary(10, 36)
    ring, cone = a.pick("steel", "gold", "grey", "black"), a.pick("rubber", "black", "screen")
    if a.coin(0.7):
        long, cord = a.vary(62, 84), a.pick("leather", "rubber", "plain")
        a.tube(smooth((w - 4, -h + 34), (w + 13, -h + 40), (w + 22, -h + long), (w + 15, -h + long + 10),
                      (w + 9, -h + long), (w + 10, -h + 46), (w - 4, -h + 38), closed=False), 4.5, cord)  # fmt: skip
        a.body(rect(w - 5, -h + 28, 9, 16, 3), "bar", ring)
    for x in (-w * 0.5, w * 0.5):
        a.body(rect(x - 13, h - 5, 26, 13, 5), "bar", "rubber")
    a.body(rect(-w, -h, 2 * w, 2 * h, r), "tube")
    a.line(rect(-w + 6, -h + 6, 2 * w - 12, 2 * h - 12, r - 5), 1.6, "dark", 0.6)
    small = w * a.vary(0.28, 0.36)
    big = min(w * a.vary(0.62, 0.72), h - small - 23)
    for y, q in ((h - big - 18, big), (-h + small + 16, small)):
        a.shadow(ellipse(1, y + 3, q + 3), 0.3)
        a.body(ellipse(0, y, q + 2), "soft", ring)
        a.body(ellipse(0, y, q - 3), "flat", "rubber")
        a.body(ellipse(0, y, q * 0.72), "soft", cone)
        a.line(ellipse(0, y, q * 0.54), 1.2, "grey", 0.5)
        a.body(ellipse(0, y, q * 0.32), "ball", a.pick("grey", "rubber") if q == small else ring)
        a.gloss(ellipse(-q * 0.45, y - q * 0.48, q * 0.12, q * 0.09), 0.5)
    x, y = w * 0.68, -h + 30
    a.body(ellipse(x, y, 9), "flat", "white")
    a.line(f"M{x - 3.4} {y - 3.2}l6.8 6.4l-3.4 3.2v-12.8l3.4 3.2l-6.8 6.4", 1.5, "screen")
    for dy in (-8, 8):
        a.fill(ellipse(-x, y + dy, 3.6), a.pick("white", "rubber"), 0.9)


@product("wrist watch", "electronics", synonyms=("wristwatch", "watch"),
         materials=("stainless steel", "leather", "silicone"))  # fmt: skip
def wrist_watch(a: Art) -> None:
    w, end, r = a.vary(33, 39), a.vary(24, 30), a.vary(51, 58)
    metal, dial, square = a.pick("steel", "gold", "steel", "grey"), a.pick("white", "cream", "screen"), a.coin(0.3)
    a.body(poly((-end, -92), (end, -92), (w, -36), (-w, -36)), "tube")
    a.body(f"M{-w} 36H{w}L{end} 86Q{end} 100 0 100Q{-end} 100 {-end} 86z", "tube")
    a.line(f"M{-end + 5} -84L{-w + 6} -46M{end - 5} -84L{w - 6} -46", 1.4, "light", 0.9, "4 3")
    a.line(f"M{-w + 6} 46L{-end + 5} 86M{w - 6} 46L{end - 5} 86", 1.4, "light", 0.9, "4 3")
    for y in (70, 79, 88):
        a.fill(ellipse(0, y, 2.6), "black", 0.75)
    a.body(rect(-end - 5, -99, 2 * end + 10, 16, 5), "soft", metal)
    a.fill(rect(-end + 2, -94, 2 * end - 4, 6, 2), "black", 0.5)
    a.line("M0 -91V-98", 3, metal)
    a.body(rect(r - 3, -7, 14, 14, 4), "bar", metal)
    if a.coin(0.4):
        for s in (-1, 1):
            a.body(rect(r * 0.8, s * 24 - 4, 16, 8, 3), "bar", metal)

    def face(q: float) -> str:
        return rect(-q, -q, 2 * q, 2 * q, q * 0.42) if square else ellipse(0, 0, q)

    a.body(rect(-w - 3, -r - 3, 2 * w + 6, 2 * r + 6, 6), "tube", metal)
    a.body(face(r), "soft", metal)
    a.body(face(r - 5), "flat", a.pick("plain", "dark", metal))
    a.body(face(r - 10), "flat", dial)
    ink = "white" if dial == "screen" else "black"
    a.line(_spokes(r - 17, r - 13, 12), 2.4, ink, 0.85)
    turn = a.vary(-0.5, 0.3)
    a.line(f"M0 0L{-20 * cos(turn):.1f} {-20 * sin(turn) - 4:.1f}", 4.2, ink)
    a.line(f"M0 0L{13 + 8 * turn:.1f} {-r + 22:.1f}", 3, ink)
    a.line(f"M0 -6L{4 * turn:.1f} {r - 18:.1f}", 1.4, "plain")
    a.body(ellipse(0, 0, 4), "ball", metal)
    a.gloss(poly((-r * 0.5, -r * 0.45), (-r * 0.1, -r * 0.68), (-r * 0.35, r * 0.5), (-r * 0.55, r * 0.4)), 0.22)


@product("radio", "electronics", synonyms=("retro radio", "transistor radio"),
         materials=("bakelite", "walnut", "plastic"))  # fmt: skip
def radio(a: Art) -> None:
    w, h, top = a.vary(88, 96), a.vary(108, 122), -36
    metal, cloth = a.pick("steel", "gold"), a.pick("cream", "wood", "rubber", "white")
    lean = a.vary(0.5, 0.9)
    a.tube(f"M{w - 18} {top + 4}L{w - 18 - 74 * lean:.1f} -94", 3.6, "steel")
    a.body(ellipse(w - 18 - 74 * lean, -95, 4.5), "ball", "steel")
    hx, hy = w * a.vary(0.5, 0.72), a.vary(-68, -60)
    a.tube(f"M{-hx} {top + 4}V{hy + 10}Q{-hx} {hy} {-hx + 10} {hy}H{hx - 10}Q{hx} {hy} {hx} {hy + 10}V{top + 4}", 9,
           a.pick("plain", "leather", metal))  # fmt: skip
    for x in (-w + 14, w - 36):
        a.body(rect(x, top + h - 4, 22, 12, 4), "bar", "rubber")
    r = a.vary(8, 26)
    a.body(rect(-w, top, 2 * w, h, r), "soft")
    a.line(rect(-w + 5, top + 5, 2 * w - 10, h - 10, r - 4), 2, metal)
    q, cy = h * 0.36, top + h / 2
    gx = -w + q + 14
    if a.coin():
        a.body(ellipse(gx, cy, q), "flat", cloth)
        with a.group(clip=ellipse(gx, cy, q - 4)):
            a.line("".join(f"M{gx - q} {cy + i * 8}h{2 * q}" for i in range(-4, 5)), 3.2, "black", 0.6)
        a.line(ellipse(gx, cy, q), 3, metal)
    else:
        a.body(rect(gx - q, cy - q, 2 * q, 2 * q, 8), "flat", cloth)
        a.line("".join(f"M{gx + i * 9} {cy - q + 7}v{2 * q - 14}" for i in range(-3, 4)), 3.4, "black", 0.6)
        a.line(rect(gx - q, cy - q, 2 * q, 2 * q, 8), 2.6, metal)
    x0, x1 = gx + q + 10, w - 14
    a.body(rect(x0, top + 16, x1 - x0, 32, 5), "flat", "cream")
    step = (x1 - x0 - 14) / 8
    a.line("".join(f"M{x0 + 7 + i * step:.1f} {top + 22}v{11 if i % 2 else 17}" for i in range(9)), 1.8, "screen", 0.8)
    a.line(f"M{x0 + (x1 - x0) * a.vary(0.25, 0.75):.1f} {top + 19}v26", 2.6, "plain" if a.coin() else "black")
    a.line(rect(x0, top + 16, x1 - x0, 32, 5), 2.2, metal)
    for x, k in ((x0 + 17, 13), (x1 - 17, 13)):
        y = top + h - 31
        a.shadow(ellipse(x + 1, y + 3, k + 1), 0.35)
        a.body(ellipse(x, y, k), "soft", metal)
        a.body(ellipse(x, y, k - 4), "ball", cloth)
        a.line(f"M{x} {y}L{x + a.vary(-5, 5):.1f} {y - k + 5}", 2, "black")


@product("desk fan", "electronics", synonyms=("table fan", "fan"), materials=("metal", "plastic", "chrome"))
def desk_fan(a: Art) -> None:
    r, cy, blades = a.vary(60, 67), a.vary(-31, -28), a.pick(3, 4, 5)
    wire, base = a.pick("steel", "gold", "grey"), a.vary(38, 52)
    a.body(poly((-8, cy + 40), (8, cy + 40), (11, 84), (-11, 84)), "tube", "plain")
    a.body(f"M{-base} 92Q{-base} 72 {-base * 0.35} 70H{base * 0.35}Q{base} 72 {base} 92Q{base} 98 {base - 8} 98"
           f"H{-base + 8}Q{-base} 98 {-base} 92z", "soft")  # fmt: skip
    for i, tone in enumerate(("white", "rubber", "rubber")):
        a.body(ellipse(-16 + 16 * i, 86, 5, 3.6), "ball", tone)
    with a.group(at=(0, cy)):
        a.fill(ellipse(0, 0, r), "grey", 0.42)
        a.line(_spokes(10, r, 18, 0.17), 1, "grey", 0.6)
        turn, length, wide = a.vary(0, 120), r * 0.92, r * (1.1, 0.86, 0.66)[blades - 3]
        blade = (f"M4 2C{length * 0.3} {wide * 0.3} {length * 0.7} {wide * 0.55} {length * 0.9} {wide * 0.36}"
                 f"C{length * 1.06} {wide * 0.05} {length * 0.86} {-wide * 0.62} {length * 0.5} {-wide * 0.5}"
                 f"C{length * 0.3} {-wide * 0.4} {length * 0.2} -8 2 -6z")  # fmt: skip
        for i in range(blades):
            with a.group(rotate=turn + 360 * i / blades):
                a.body(blade, "flat")
        a.line(_spokes(12, r, a.pick(20, 24, 28)), 1.3, wire)
        a.line(ellipse(0, 0, r * 0.42) + ellipse(0, 0, r * 0.72), 1.5, wire)
        a.tube(ellipse(0, 0, r), a.vary(5, 8), a.pick(wire, "plain"))
        a.body(ellipse(0, 0, a.vary(13, 17)), "ball", "plain")
        a.body(ellipse(0, 0, 7), "ball", wire)


@product("computer mouse", "electronics", synonyms=("mouse", "wireless mouse"),
         materials=("plastic", "aluminium", "soft-touch rubber"))  # fmt: skip
def computer_mouse(a: Art) -> None:
    w, h, shoulder = a.vary(48, 58), a.vary(72, 80), a.vary(0.8, 0.96)
    with a.group(at=(0, 16), rotate=a.vary(-14, 14)):
        if a.coin(0.7):
            s = a.pick(-1, 1)
            a.tube(smooth((0, -h + 8), (0, -h - 12), (s * 16, -h - 24), (s * 42, -h - 22), closed=False), 5, "rubber")
            a.body(rect(-6, -h - 12, 12, 18, 4), "tube", "rubber")
        a.body(smooth(*symmetric((0, -h + 3), (w * 0.66, -h + 8), (w * shoulder + 3, -h * 0.4), (w + 3, h * 0.3),
                                 (w * 0.7, h * 0.88), (0, h + 5))), "soft", "rubber")  # fmt: skip
        shell = smooth(*symmetric((0, -h), (w * 0.64, -h * 0.92), (w * shoulder, -h * 0.45), (w, h * 0.25),
                                  (w * 0.68, h * 0.82), (0, h)))  # fmt: skip
        a.body(shell, "soft")
        y = -h * a.vary(0.06, 0.2)
        with a.group(clip=shell):
            a.line(f"M{-w - 4} {y - 6}Q0 {y + 16} {w + 4} {y - 6}M0 {-h - 4}V{y + 4}", 3, "black", 0.75)
            a.line(f"M{-w - 4} {y - 3.4}Q0 {y + 18.6} {w + 4} {y - 3.4}", 1.4, "white", 0.4)
            if a.coin():
                for s in (-1, 1):
                    a.body(smooth((s * w * 1.1, y + 8), (s * (w - 9), y + 20), (s * (w - 8), y + 50), (s * w * 1.1, h * 0.7)),
                           "flat", a.pick("rubber", "dark"))  # fmt: skip
        a.body(rect(-10, -h * 0.78, 20, h * 0.5, 10), "flat", "black")
        a.body(rect(-6, -h * 0.72, 12, h * 0.38, 6), "bar", a.pick("steel", "grey", "accent"))
        a.line("".join(f"M-4 {-h * 0.72 + 6 + i * 5.4:.1f}h8" for i in range(4)), 1.2, "black", 0.6)
        a.gloss(
            smooth((-w * 0.66, -h * 0.66), (-w * 0.42, -h * 0.74), (-w * 0.5, -h * 0.3), (-w * 0.72, -h * 0.3)), 0.4
        )
        a.fill(ellipse(0, h * 0.62, 7, 4), a.pick("white", "steel", "accent"), 0.9)


@product("notebook", "office", synonyms=("journal", "notepad"), materials=("paper", "leatherette", "linen"))
def notebook(a: Art) -> None:
    w, h, r = a.vary(62, 70), a.vary(86, 92), a.vary(3, 12)
    spiral, metal = a.coin(), a.pick("steel", "black", "gold")
    with a.group(at=(0, -1), rotate=a.vary(-5, 5), scale=0.95):
        if not spiral:
            a.line(f"M{w * 0.1} {h - 6}L{w * 0.1 - 3} {h + 11}", 5, a.pick("gold", "accent", "leather"))
        a.body(rect(-w + 5, -h + 6, 2 * w + 2, 2 * h, r), "flat", "dark")
        a.body(rect(-w + 4, -h + 4, 2 * w - 1, 2 * h - 2, 3), "flat", "cream")
        a.line(f"M{w + 1} {-h + 8}V{h - 1}H{-w + 8}", 1, "grey", 0.8)
        a.body(rect(-w, -h, 2 * w - 1, 2 * h - 3, r), "soft")
        if spiral:
            holes = range(13)
            y0, step = -h + 11, (2 * h - 25) / 12
            a.fill("".join(ellipse(-w + 11, y0 + i * step, 3.6) for i in holes), "black", 0.7)
            a.line("".join(f"M{-w + 11} {y0 + i * step:.1f}C{-w + 4} {y0 + i * step - 9:.1f} {-w - 12} "
                           f"{y0 + i * step - 6:.1f} {-w - 5} {y0 + i * step + 2:.1f}" for i in holes), 3, metal)  # fmt: skip
        else:
            a.body(rect(-w, -h, 22, 2 * h - 3, r), "tube", a.pick("dark", "plain", "leather"))
            a.line(f"M{-w + 26} {-h + 4}V{h - 7}", 1.4, "light", 0.8, "4 3")
            a.fill(rect(w - 21, -h, 8, 2 * h - 3), a.pick("black", "leather", "dark"), 0.9)
            a.gloss(rect(w - 20, -h, 2.5, 2 * h - 3), 0.25)
        x, lw, y = -w * 0.42, w * a.vary(0.85, 1.0), a.vary(-h * 0.62, -h * 0.3)
        if a.coin(0.75):
            a.body(rect(x, y, lw, 38, a.pick(2, 8, 19)), "flat", a.pick("cream", "white"))
            a.line(f"M{x + 14} {y + 14}h{lw - 28}M{x + 14} {y + 24}h{(lw - 28) * 0.7:.1f}", 2, "grey", 0.9)
        a.gloss(poly((-w + 26, -h + 2), (-w + 60, -h + 2), (-w + 26, -h + 70)), 0.13)


@product("backpack", "bags", synonyms=("rucksack", "school bag"), materials=("nylon", "canvas", "polyester"))
def backpack(a: Art) -> None:
    w, top, bottom = a.vary(56, 64), a.vary(-80, -74), a.vary(92, 97)
    strap, metal = a.pick("rubber", "leather", "dark"), a.pick("steel", "gold", "black")
    a.tube(f"M-15 {top + 4}C-15 {top - 24} 15 {top - 24} 15 {top + 4}", 7, strap)
    for s in (-1, 1):
        with a.group(scale=(s, 1)):
            a.tube(smooth((w - 18, top + 24), (w + 18, top + 48), (w + 24, 36), (w - 2, 82), closed=False), 11, strap)
            a.body(smooth((w - 10, 16), (w - 10, 16), (w + 15, 24), (w + 15, bottom - 26), (w - 12, bottom - 13),
                          (w - 12, bottom - 13)), "soft", "dark")  # fmt: skip
    broad = a.vary(0.7, 0.86)
    a.body(f"M{-w} {bottom - 20}V{top + 50}C{-w} {top + 14} {-w * broad} {top} {-w * 0.3} {top}H{w * 0.3}C{w * broad} {top} "
           f"{w} {top + 14} {w} {top + 50}V{bottom - 20}Q{w} {bottom} {w - 18} {bottom}H{-w + 18}"
           f"Q{-w} {bottom} {-w} {bottom - 20}z", "tube")  # fmt: skip
    a.line(f"M{-w + 9} 2V{top + 52}Q{-w + 10} {top + 11} -14 {top + 11}H14Q{w - 10} {top + 11} {w - 9} {top + 52}V2", 3,
           "black", 0.65)  # fmt: skip
    a.line(f"M{w - 9} -8v13", 3.4, metal)
    pw, py = w - a.vary(9, 14), a.vary(14, 24)
    a.shadow(rect(-pw - 1, py - 2, 2 * pw + 4, bottom - py - 5, 16), 0.35)
    a.body(rect(-pw, py, 2 * pw, bottom - py - 9, 16), "soft")
    a.line(f"M{-pw + 9} {py + 13}H{pw - 9}", 3.4, "black", 0.7)
    a.line(f"M{pw - 14} {py + 13}v11", 4, metal)
    if a.coin():
        for x in (-pw * 0.52, pw * 0.52):
            a.body(rect(x - 5, top + 24, 10, py - top + 12, 3), "tube", strap)
            a.body(rect(x - 8, py - 14, 16, 14, 3), "bar", metal)
    else:
        a.body(rect(-19, top + 36, 38, 26, 6), "soft", a.pick("leather", "cream", "rubber"))
        a.line(rect(-15, top + 40, 30, 18, 3), 1.2, "white", 0.7, "3 2")
    a.line(rect(-pw + 5, py + 21, 2 * pw - 10, bottom - py - 36, 10), 1.4, "light", 0.8, "4 3")


@product("handbag", "bags", synonyms=("tote", "purse"), materials=("leather", "suede", "vegan leather"))
def handbag(a: Art) -> None:
    w, tw, top, bottom = a.vary(82, 92), a.vary(62, 74), a.vary(-22, -10), a.vary(78, 88)
    metal, trim = a.pick("gold", "gold", "steel"), a.pick("dark", "leather", "plain")
    hx, peak = tw * a.vary(0.46, 0.6), a.vary(-96, -88)
    rear = f"M{-hx + 7} {top}C{-hx + 4} {peak - 4} {hx - 4} {peak - 4} {hx - 7} {top}"
    a.line(rear, 7.6, "black", 0.5)
    a.line(rear, 6, trim)
    a.body(poly((-tw + 6, top + 4), (-tw + 16, top - 8), (tw - 16, top - 8), (tw - 6, top + 4)), "flat", "dark")
    a.body(f"M{-tw} {top}H{tw}L{w} {bottom - 14}Q{w + 1} {bottom} {w - 14} {bottom}H{-w + 14}Q{-w - 1} {bottom} {-w} "
           f"{bottom - 14}z", "soft")  # fmt: skip
    a.line(f"M{-w + 8} {bottom - 7}H{w - 8}M{-tw + 5} {top + 12}L{-w + 8} {bottom - 10}M{tw - 5} {top + 12}L{w - 8} "
           f"{bottom - 10}", 1.5, "light", 0.8, "5 3")  # fmt: skip
    style = a.pick("flap", "belt", "open")
    if style == "flap":
        flap = f"M{-tw} {top - 2}H{tw}L{tw + 2} {top + 26}Q{tw * 0.5} {top + 58} 0 {top + 58}Q{-tw * 0.5} {top + 58} {-tw - 2} {top + 26}z"
        with a.group(at=(1, 4)):
            a.shadow(flap, 0.3)
        a.body(flap, "soft")
        a.body(rect(-12, top + 44, 24, 24, 6), "soft", metal)
        a.fill(rect(-5, top + 52, 10, 8, 3), "black", 0.5)
    elif style == "belt":
        a.body(rect(-tw - 3, top + 16, 2 * tw + 6, 15, 4), "bar", trim)
        a.body(rect(-9, top - 6, 18, 60, 6), "tube", trim)
        a.body(rect(-14, top + 14, 28, 20, 4), "soft", metal)
        a.fill(rect(-9, top + 19, 18, 10, 2), "black", 0.45)
    else:
        a.body(rect(-tw - 1, top - 2, 2 * tw + 2, 13, 5), "bar", trim)
        a.tube(f"M{tw * 0.1} {top + 8}v22", 2.4, metal)
        a.body(ellipse(tw * 0.1, top + 38, 9, 11), "soft", trim)
    a.tube(f"M{-hx} {top + 24}V{top}C{-hx - 4} {peak + 4} {hx + 4} {peak + 4} {hx} {top}V{top + 24}", 8.5, trim)
    for s in (-1, 1):
        a.body(rect(s * hx - 8, top + 12, 16, 19, 5), "soft", metal)
        a.body(ellipse(s * (w - 20), bottom + 2, 6, 4), "ball", metal)


@product("suitcase", "bags", synonyms=("trolley case", "luggage"),
         materials=("polycarbonate", "aluminium", "ballistic nylon"))  # fmt: skip
def suitcase(a: Art) -> None:
    w, top, bottom, r = a.vary(50, 60), a.vary(-56, -46), 84, a.vary(10, 20)
    metal, hx = a.pick("steel", "grey", "gold"), a.vary(20, 28)
    for s in (-1, 1):
        a.body(rect(s * hx - 3, -92, 6, top + 98, 1), "tube", metal)
        with a.group(at=(s * (w - 16), 90)):
            a.body(rect(-9, -12, 18, 14, 4), "bar", "rubber")
            a.body(ellipse(0, 2, 8.5), "ball", "black")
            a.fill(ellipse(0, 2, 3.4), metal)
    a.body(rect(-hx - 8, -99, 2 * hx + 16, 13, 6), "bar", "rubber")
    a.tube(f"M{w - 3} -8h7q5 0 5 5v30q0 5 -5 5h-7", 5, "rubber")
    a.body(rect(-w, top, 2 * w, bottom - top, r), "tube")
    ribs = a.pick("up", "across", "belts")
    if ribs == "up":
        n, reach = a.pick(4, 5, 6), w * 0.74
        xs = [-reach + 2 * reach * i / (n - 1) for i in range(n)]
        a.line("".join(f"M{x:.1f} {top + 20}V{bottom - 16}" for x in xs), 4, "black", 0.32)
        a.line("".join(f"M{x + 2.6:.1f} {top + 20}V{bottom - 16}" for x in xs), 1.8, "white", 0.5)
    elif ribs == "across":
        ys = [top + 26 + i * (bottom - top - 48) / 5 for i in range(6)]
        a.line("".join(f"M{-w + 12} {y:.1f}H{w - 12}" for y in ys), 4, "black", 0.32)
        a.line("".join(f"M{-w + 12} {y + 2.6:.1f}H{w - 12}" for y in ys), 1.8, "white", 0.5)
    else:
        for x in (-w * 0.55, w * 0.55):
            a.body(rect(x - 6, top, 12, bottom - top), "tube", "leather")
            a.body(rect(x - 9, top + 40, 18, 15, 3), "soft", metal)
    for s in (-1, 1):
        with a.group(scale=(s, 1)):
            for y, dy in ((top, 1), (bottom, -1)):
                a.body(f"M{w} {y + dy * 26}V{y + dy * r}Q{w} {y} {w - r} {y}H{w - 26}Q{w - 24} {y + dy * 22} {w} {y + dy * 26}z",
                       "flat", "dark" if ribs != "belts" else "leather")  # fmt: skip
    a.tube(f"M-16 {top + 2}v-7q0 -4 4 -4h24q4 0 4 4v7", 5, "rubber")
    a.body(rect(-11, top + 8, 22, 13, 4), "soft", metal)
    a.fill(ellipse(0, top + 14.5, 2.6), "black", 0.7)


@product("umbrella", "bags", synonyms=("rain umbrella", "parasol"), materials=("polyester", "nylon", "pongee"))
def umbrella(a: Art) -> None:
    w, top, rim = a.vary(90, 97), a.vary(-84, -76), a.vary(-4, 8)
    rod, handle, s = a.pick("steel", "wood", "black"), a.pick("wood", "dark wood", "rubber", "leather"), a.pick(-1, 1)
    panels, sag = a.pick(4, 5, 6), a.vary(9, 14)
    with a.group(rotate=a.vary(-9, 9)):
        a.tube(f"M0 {top - 12}V{top + 10}", 4.5, rod)
        a.tube(f"M0 {rim - 20}V62", 5, rod)
        hook = a.vary(14, 17)
        a.tube(f"M0 58V82C0 {82 + hook} {s * 2 * hook:.1f} {82 + hook} {s * 2 * hook:.1f} 82V76", 9, handle)
        a.body(rect(-6, 50, 12, 9, 2), "tube", a.pick("gold", "steel"))
        xs = [-w * cos(pi * i / panels) for i in range(panels + 1)]
        ys = [rim + 9 * sin(pi * i / panels) for i in range(panels + 1)]
        hem = "".join(
            f"Q{(xs[i] + xs[i - 1]) / 2:.1f} {(ys[i] + ys[i - 1]) / 2 - sag * min(1.4, (xs[i] - xs[i - 1]) / 28):.1f} {xs[i - 1]:.1f} {ys[i - 1]:.1f}"
            for i in range(panels, 0, -1)
        )
        a.fill(f"M{-w + 3} {rim}Q0 {rim - 34} {w - 3} {rim}Q0 {rim + 3} {-w + 3} {rim}z", "dark")
        canopy = f"M{-w:.1f} {rim:.1f}C{-w * 0.92:.1f} {top + 36:.1f} {-w * 0.5:.1f} {top:.1f} 0 {top:.1f}"
        canopy += f"C{w * 0.5:.1f} {top:.1f} {w * 0.92:.1f} {top + 36:.1f} {w:.1f} {rim:.1f}{hem}z"
        a.body(canopy, "soft")
        with a.group(clip=canopy):
            for i in range(1, panels):
                x, y, x0, y0 = xs[i], ys[i], xs[i - 1], ys[i - 1]
                if i % 2:
                    a.shadow(f"M0 {top}Q{x0 * 0.95} {top + 10} {x0} {y0}L{x} {y}Q{x * 0.95} {top + 10} 0 {top}z", 0.13)
                a.line(f"M0 {top}Q{x * 0.95:.1f} {top + 10} {x:.1f} {y:.1f}", 1.8, "dark", 0.8)
            a.gloss(
                smooth((-w * 0.5, top + 34), (-w * 0.24, top + 15), (-w * 0.3, top + 34), (-w * 0.56, top + 52)), 0.28
            )
        a.body(rect(-6, top - 5, 12, 9, 4), "bar", "dark")
        a.fill("".join(ellipse(x, y + 1, 2.4) for x, y in zip(xs, ys, strict=True)), rod)
