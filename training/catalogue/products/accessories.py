"""Caps, scarves, ties, bags, umbrellas and notebooks."""

from __future__ import annotations

from math import cos, pi, sin

from training.catalogue.art import Art, ellipse, poly, rect, smooth, symmetric


def baseball_cap(a: Art) -> None:
    high, back, brim = a.vary(-72, -56), a.vary(-64, -54), a.vary(86, 95)
    peak, badge = a.pick("dark", "plain", "light"), a.pick("disc", "patch", "none")
    dome = f"M{back} 30Q{back - 8} {high + 4} -6 {high}Q46 {high + 2} 50 22Q10 10 {back} 30z"
    side = a.pick(1, -1)
    with a.group(scale=(side * 1.1, 1.15), at=(-22 * side, 20)):
        a.body(dome, "ball")
        with a.group(clip=dome):
            a.line(f"M-6 {high}Q-34 {high + 36} -28 26M-6 {high}Q30 {high + 30} 26 22", 1.6, "black", 0.4)
            a.line(f"M-6 {high}Q-30 {high + 38} -24 26M-6 {high}Q26 {high + 32} 22 22", 1, "white", 0.5, "3 2.5")
        a.body(ellipse(-6, high, 7, 4), "ball", peak)
        a.shadow("M50 22Q10 10 -26 24L-10 30Q20 18 50 26z", 0.25)
        for x in (-42, 10):
            a.shadow(ellipse(x, high + 38, 2.4), 0.7)
        a.body(f"M-26 24Q14 2 52 16Q{brim} 22 {brim + 14} 44Q{brim} 50 70 40Q20 26 -26 24z", "flat", peak)
        for inset in (5, 10):
            a.line(
                f"M{-14 + 2 * inset} {24 - inset * 0.3}Q50 {26 - inset * 0.4} {brim + 6 - inset} {44 - inset}",
                1,
                "black",
                0.35,
                "3 2.5",
            )
        if badge == "disc":
            a.body(ellipse(36, -14, 8, 12), "flat", "white")
            a.line(ellipse(36, -14, 5, 8.5), 1.8, "dark")
        elif badge == "patch":
            a.body(poly((29, -24), (40, -27), (45, -4), (33, -2)), "flat", "leather")


def winter_scarf(a: Art) -> None:
    w, short, long, lean = a.vary(21, 26), a.vary(40, 62), a.vary(74, 84), a.vary(4, 12)
    loop, trim = a.vary(56, 66), a.pick("light", "dark", "accent")
    for x, end, turn in ((-16, short, lean), (14, long, -lean)):
        with a.group(at=(x, -30), rotate=turn):
            for i in range(7):
                a.line(f"M{-w + 3 + i * (w - 3) / 3:.1f} {end + 22}v14", 3.2, "plain")
            a.body(rect(-w, 0, 2 * w, end + 26, 3), "tube")
            for i in range(1, 6):
                a.line(f"M{-w + i * w / 3:.1f} 4V{end + 24}", 1, "black", 0.18, "3 2")
            for y in (6, 15):
                a.fill(rect(-w, end + y, 2 * w, 5), trim)
    ring = smooth(*symmetric((0, -92), (loop * 0.7, -88), (loop, -62), (loop * 0.6, -28), (0, -20)))
    a.body(ring, "ball")
    hollow = smooth((-loop * 0.6, -78), (0, -90), (loop * 0.6, -78), (loop * 0.3, -66), (0, -63), (-loop * 0.3, -66))
    a.hollow(hollow, 0.45)
    with a.group(clip=ring):
        for i in range(3):
            a.line(f"M{-loop} {-70 + i * 8}Q{-10 + i * 12} {-44 + i * 13} {loop} {-72 + i * 11}", 2.2, "black", 0.3)
        a.gloss(f"M{8 - loop} -66Q-20 -44 10 -50Q-20 -52 {12 - loop} -74z", 0.25)


def necktie(a: Art) -> None:
    w, tip, knot = a.vary(23, 32), a.vary(62, 76), a.vary(14, 18)
    a.tube("M-6 -70Q-40 -82 -30 -90Q0 -99 30 -90Q40 -82 6 -70", 10, "plain")
    a.body(poly((6, -50), (14, -50), (w, 60), (w - 12, 76), (0, 60)), "flat", "dark")
    a.body(f"M-9 -56H9L{w} {tip}L0 99L{-w} {tip}z", "tube")
    a.shadow("M-9 -56H9L5 -40Q0 -50 0 -20Q-3 -48 -10 -44z", 0.4)
    a.gloss(f"M-5 -30L{-w + 5} {tip - 4}L{-w * 0.55} {tip + 8}z", 0.14)
    if a.coin(0.3):
        a.tube(f"M{-w * 0.55 - 3} 10H{w * 0.4}", 5, a.pick("gold", "steel"))
    a.body(f"M{-knot} -84Q0 -90 {knot} -84L10 -54Q0 -50 -10 -54z", "soft")
    a.line(f"M{knot - 4} -82Q2 -70 -2 -55", 1.4, "black", 0.3)


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
