"""Electronics."""

from __future__ import annotations

from math import cos, pi, sin

from training.catalogue.art import Art, ellipse, poly, rect, smooth, symmetric


def _spokes(inner: float, outer: float, count: int, turn: float = 0) -> str:
    """Radial strokes around the origin as one path."""
    d = ""
    for i in range(count):
        x, y = cos(turn + 2 * pi * i / count), sin(turn + 2 * pi * i / count)
        d += f"M{inner * x:.2f} {inner * y:.2f}L{outer * x:.2f} {outer * y:.2f}"
    return d


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
