"""Clothes."""

from __future__ import annotations

from collections.abc import Iterator

from training.catalogue.art import Art, ellipse, poly, rect, smooth, symmetric


def _sides(a: Art) -> Iterator[int]:
    """Draw everything in the loop's body twice: once as it is, and once mirrored."""
    for side in (1, -1):
        with a.group(scale=(side, 1)):
            yield side


def t_shirt(a: Art) -> None:
    w, hem, neck, dip = a.vary(46, 54), a.vary(80, 94), a.vary(20, 25), a.vary(20, 30)
    reach, drop = a.vary(88, 98), a.vary(-22, -6)
    vee, trim, pocket = a.coin(0.35), a.pick("dark", "light", "plain"), a.coin(0.4)
    low = f"L0 {-82 + dip * 1.35}L" if vee else f"Q{neck * 0.8} {-82 + dip} 0 {-82 + dip}Q{-neck * 0.8} {-82 + dip} "
    hollow = f"M{-neck} -86Q0 -76 {neck} -86{low}{-neck} -86z"
    a.hollow(hollow, 0.4)
    a.line(f"M{-neck} -86Q0 -76 {neck} -86", 4, trim)
    for _ in _sides(a):
        a.body(f"M{w - 8} -76Q{reach - 20} -66 {reach} {drop - 16}L{reach - 26} {drop + 6}L{w - 6} -16z", "soft")
        a.line(f"M{reach - 2} {drop - 13}L{reach - 26} {drop + 3}", 3.4, trim)
    torso = (
        f"M{neck} -86{low}{-neck} -86L{-w + 4} -76Q{-w + 6} -40 {-w} -14Q{-w + 5} 30 {-w} {hem}Q0 {hem + 8} {w} {hem}"
        f"Q{w - 5} 30 {w} -14Q{w - 6} -40 {w - 4} -76z"
    )
    a.body(torso, "soft")
    a.line(f"M{neck} -86{low}{-neck} -86", 5.5, trim)
    a.line(f"M{-w + 1} {hem - 6}Q0 {hem + 2} {w - 1} {hem - 6}", 1.2, "black", 0.35, "4 2.5")
    for _ in _sides(a):
        a.shadow(f"M{w - 1} -12Q{w * 0.6} 6 {w * 0.45} 2Q{w * 0.7} -2 {w - 3} -26z", 0.16)
        a.shadow(f"M{w - 2} {hem - 2}Q{w * 0.7} 50 {w * 0.72} 16Q{w * 0.9} 50 {w - 2} {hem - 2}z", 0.14)
    if pocket:
        a.body("M14 -36h22v20l-11 7l-11 -7z", "flat", "plain")
        a.line("M15 -31h20", 1.2, "black", 0.4, "3 2")


def dress(a: Art) -> None:
    bust, waist, flare = a.vary(31, 36), a.vary(22, 27), a.vary(58, 78)
    line, hem, sleeves = a.vary(-26, -14), a.vary(80, 92), a.pick("straps", "cap", "none")
    belt, folds = a.pick("leather", "dark", "accent", "gold"), a.vary(0.2, 0.34)
    inner = 12 if sleeves == "straps" else 14
    if sleeves != "straps":
        a.hollow(f"M{-inner - 5} -88Q0 -80 {inner + 5} -88L{inner} -60H{-inner}z", 0.35)
    for _ in _sides(a):
        if sleeves == "straps":
            a.line(f"M{inner + 7} -60Q{inner + 6} -84 {inner + 2} -97", 5, "dark")
            a.line(f"M{inner + 7} -60Q{inner + 6} -84 {inner + 2} -97", 3.4, "plain")
        elif sleeves == "cap":
            a.body(f"M{inner + 6} -91Q{bust + 16} -86 {bust + 22} -58Q{bust + 10} -48 {bust - 5} -52z", "soft")
    if sleeves == "straps":
        top = f"M0 -58Q{bust * 0.5} -72 {bust - 8} -68L{bust} -46"
        back, left = f"{-bust} -46", f"L{8 - bust} -68Q{-bust * 0.5} -72 0 -58z"
    else:
        top = f"M0 -64Q{inner} -66 {inner + 1} -92L{inner + 14} -88Q{bust - 6} -64 {bust} -48"
        back, left = f"{-bust} -48", f"Q{6 - bust} -64 {-inner - 14} -88L{-inner - 1} -92Q{-inner} -66 0 -64z"
    a.body(f"{top}Q{bust - 4} {line - 12} {waist} {line}H{-waist}Q{4 - bust} {line - 12} {back}{left}", "soft")
    for _ in _sides(a):
        a.line(f"M{bust * 0.5} -54Q{bust * 0.62} {line - 20} {waist * 0.6} {line}", 1.2, "black", 0.3)
    skirt = f"M{-waist} {line}Q{-waist - 10} {line + 50} {-flare} {hem}Q{-flare * 0.5} {hem + 12} 0 {hem + 5}"
    skirt += f"Q{flare * 0.5} {hem + 12} {flare} {hem}Q{waist + 10} {line + 50} {waist} {line}z"
    a.body(skirt, "soft")
    for x in (-0.7, -0.25, 0.3, 0.75):
        end = flare * x
        fold = f"M{waist * x} {line}Q{waist * x + end * 0.1} {line + 50} {end - 8} {hem + 5}L{end + 4} {hem + 6}z"
        a.shadow(fold, folds * 0.6)
    a.body(rect(-waist - 2, line - 5, 2 * waist + 4, 10, 3), "bar", belt)
    if a.coin(0.5):
        a.line(rect(-5, line - 6, 10, 12, 2), 2, "gold" if belt != "gold" else "white")


def skirt(a: Art) -> None:
    waist, flare, hem, pleats = a.vary(36, 44), a.vary(80, 96), a.vary(62, 84), a.pick(5, 6, 7)
    top, wave = a.vary(-74, -60), a.vary(5, 9)
    edges = [(2 * i / pleats - 1) for i in range(pleats + 1)]
    y = [hem - 10 * e * e for e in edges]
    lower = "".join(
        f"Q{flare * (p + q) / 2:.1f} {max(s, t) + wave:.1f} {flare * q:.1f} {t:.1f}"
        for p, q, s, t in zip(edges, edges[1:], y, y[1:], strict=False)
    )
    a.body(
        f"M{-waist} {top}Q{-waist - 8} {top + 50} {-flare} {y[0]}{lower}Q{waist + 8} {top + 50} {waist} {top}z", "soft"
    )
    for e, end in zip(edges[1:-1], y[1:-1], strict=True):
        mid = f"Q{(waist + 8) * e:.1f} {top + 50} {flare * e:.1f} {end:.1f}"
        a.shadow(f"M{waist * e:.1f} {top}{mid}L{flare * e + flare / pleats * 0.8:.1f} {end + wave * 0.6:.1f}z", 0.2)
        a.line(f"M{waist * e:.1f} {top}{mid}", 1.5, "black", 0.4)
    band = (
        f"M{-waist} {top - 14}Q0 {top - 8} {waist} {top - 14}L{waist + 2} {top + 2}Q0 {top + 9} {-waist - 2} {top + 2}z"
    )
    a.body(band, "flat", a.pick("dark", "plain", "light"))
    if a.coin(0.6):
        for x in a.pick((0,), (-9, 9)):
            a.body(ellipse(x, top - 3, 4), "ball", a.pick("gold", "white"))


def jeans(a: Art) -> None:
    waist, hip, split = a.vary(33, 39), a.vary(41, 47), a.vary(-28, -16)
    knee, cuff, spread = a.vary(19, 23), a.vary(15, 26), a.vary(28, 36)
    stitch, turned = a.pick("gold", "gold", "white"), a.coin(0.35)
    a.fill(f"M{-waist} -95Q0 -88 {waist} -95L{waist} -85H{-waist}z", "dark")
    for side in _sides(a):
        leg = (
            f"M0 -88Q{waist * 0.6} -90 {waist} -95Q{hip} -66 {hip} -44L{spread - 4 + knee} 26L{spread + cuff} 96"
            f"Q{spread} 100 {spread - cuff} 96L{spread - 4 - knee} 26L0 {split}z"
        )
        a.body(leg, "tube" if side > 0 else "soft")
        a.shadow(f"M0 {split}L{spread - 4 - knee} 26L{spread - cuff} 96h7L{spread + 3 - knee} 26z", 0.22)
        a.line(f"M{hip - 4} -44L{spread - 8 + knee} 26L{spread + cuff - 4} 92", 1.1, stitch, 0.75, "4 2.5")
        a.shadow(f"M{hip - 2} -72Q{waist - 8} -50 {waist * 0.48} -82L{hip - 6} -84z", 0.25)
        a.line(f"M{hip - 2} -68Q{waist - 10} -50 {waist * 0.46} -80", 1.5, stitch, 0.9, "4 2")
        a.line(f"M2 {split}L26 {split - 12}M3 {split + 2}L28 {split - 6}", 1.1, "black", 0.3)
        a.shadow(f"M{hip - 8} 8Q{spread} 30 {spread - 14} 24Q{spread} 22 {hip - 8} 8z", 0.25)
        a.gloss(f"M{spread - 8} -30Q{spread} 0 {spread - 6} 20Q{spread - 14} 0 {spread - 8} -30z", 0.2)
        if turned:
            a.body(rect(spread - cuff - 2, 84, 2 * cuff + 4, 14, 3), "flat", "light")
        a.body(f"M0 -92Q{waist * 0.6} -93 {waist} -98L{waist + 3} -84Q{waist * 0.6} -79 0 -79z", "flat", "plain")
        a.body(rect(waist * 0.55, -97, 5, 20, 2), "flat", "light")
    a.line(f"M0 -78V{split}M10 -78V-52Q9 -42 0 -40", 1.4, stitch, 0.9, "4 2")
    a.body(ellipse(0, -86, 4.6), "ball", a.pick("gold", "steel"))


def hoodie(a: Art) -> None:
    w, hem, out = a.vary(44, 50), a.vary(76, 86), a.vary(76, 88)
    rib, zipped, hood = a.pick("dark", "plain", "light"), a.coin(0.35), a.vary(34, 40)
    for _ in _sides(a):
        a.body(
            f"M{w - 12} -58Q{out - 14} -50 {out - 4} 0L{out + 8} {hem - 16}L{out - 18} {hem - 12}L{w - 4} 0z", "soft"
        )
        a.body(poly((out + 9, hem - 19), (out + 8, hem - 2), (out - 15, hem + 1), (out - 19, hem - 15)), "flat", rib)
    a.body(
        f"M{-hood + 14} -62Q-20 -52 0 -50Q20 -52 {hood - 14} -62L{w - 6} -58Q{w - 5} -30 {w} 0"
        f"L{w} {hem}H{-w}L{-w} 0Q{-w + 5} -30 {6 - w} -58z",
        "soft",
    )
    a.body(rect(-w + 1, hem - 4, 2 * w - 2, 15, 4), "flat", rib)
    for i in range(-4, 5):
        a.line(f"M{i * w * 0.21:.1f} {hem - 1}v9", 1.3, "black", 0.25)
    hood_outline = symmetric((0, -98), (hood * 0.7, -90), (hood, -64), (hood - 12, -40), (0, -26))
    a.body(smooth(*hood_outline), "ball")
    a.hollow(smooth(*symmetric((0, -86), (hood * 0.5, -80), (hood * 0.6, -62), (0, -38), (0, -38))), 0.5)
    a.body(f"M{-w * 0.45} 18H{w * 0.45}L{w * 0.72} 44V{hem - 6}H{-w * 0.72}V44z", "flat")
    a.line(f"M{-w * 0.45} 18L{-w * 0.72} 44M{w * 0.45} 18L{w * 0.72} 44", 2.4, "dark")
    if zipped:
        a.line(f"M0 -26V{hem + 8}", 4, "dark")
        a.line(f"M0 -26V{hem + 8}", 2, "steel", 1, "2 2.4")
    drop = a.vary(2, 14)
    for _ in _sides(a):
        a.line(f"M8 -36Q13 -18 10 {drop - 6}", 3, "white")
        a.line(f"M10 {drop - 6}v5", 4, "steel")


def rain_jacket(a: Art) -> None:
    w, flare, hem = a.vary(36, 40), a.vary(54, 64), a.vary(80, 94)
    reach, wrist = a.vary(88, 96), a.vary(16, 32)
    tape, stud = a.coin(0.5), a.pick("steel", "steel", "gold", "white")
    for _ in _sides(a):
        a.body(f"M{w - 16} -54Q{w + 12} -50 {w + 22} -36L{reach} {wrist}L{reach - 25} {wrist + 14}L{w - 2} -2z", "soft")
        a.body(
            poly((reach - 4, wrist - 9), (reach + 1, wrist + 2), (reach - 25, wrist + 16), (reach - 29, wrist + 4)),
            "flat",
            "dark",
        )
    coat = f"M-24 -58H24L{w} -50Q{w + 2} 0 {flare} {hem}Q0 {hem + 9} {-flare} {hem}Q{-w - 2} 0 {-w} -50z"
    a.body(coat, "soft")
    if tape:
        with a.group(clip=coat):
            a.fill(rect(-90, 18, 180, 10), "steel")
            a.gloss(rect(-90, 20, 180, 3), 0.7)
    for _ in _sides(a):
        a.body(poly((18, 36), (44, 34), (47, 66), (20, 69)), "flat", "plain")
        a.body(poly((16, 33), (45, 31), (47, 44), (17, 47)), "flat", "light")
    a.body(f"M0 -99Q{26} -98 33 -74Q36 -52 22 -40H-22Q-36 -52 -33 -74Q-26 -98 0 -99z", "ball")
    a.hollow("M0 -86Q18 -84 21 -68Q20 -52 10 -44H-10Q-20 -52 -21 -68Q-18 -84 0 -86z", 0.55)
    a.body("M-28 -86Q0 -108 28 -86Q24 -76 20 -74Q0 -90 -20 -74Q-24 -76 -28 -86z", "flat", "light")
    a.body(f"M-9 -46H9L10 {hem + 4}H-10z", "flat", "plain")
    for i in range(5):
        y = -36 + i * (hem + 30) / 5
        a.body(ellipse(0, y, 4.4), "ball", stud)
