"""Clothing and footwear."""

from __future__ import annotations

from collections.abc import Iterator

from training.catalogue.art import Art, ellipse, poly, rect, smooth
from training.catalogue.products import product


def _sides(a: Art) -> Iterator[int]:
    """Draw what the loop's body draws twice: as it is, and mirrored."""
    for side in (1, -1):
        with a.group(scale=(side, 1)):
            yield side


@product("t-shirt", "clothing", synonyms=("tee", "tee shirt"), materials=("cotton", "jersey", "organic cotton"))
def t_shirt(a: Art) -> None:
    w, hem, neck, dip = a.vary(46, 54), a.vary(80, 94), a.vary(20, 25), a.vary(20, 30)
    reach, drop = a.vary(88, 98), a.vary(-22, -6)
    vee, trim, pocket = a.coin(0.35), a.pick("dark", "light", "plain"), a.coin(0.4)
    low = f"L0 {-82 + dip * 1.35}L" if vee else f"Q{neck * 0.8} {-82 + dip} 0 {-82 + dip}Q{-neck * 0.8} {-82 + dip} "
    hollow = f"M{-neck} -86Q0 -76 {neck} -86{low}{-neck} -86z"
    a.fill(hollow, "dark")
    a.shadow(hollow, 0.4)
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


@product("dress", "clothing", synonyms=("summer dress", "frock"), materials=("viscose", "linen", "cotton"))
def dress(a: Art) -> None:
    bust, waist, flare = a.vary(31, 36), a.vary(22, 27), a.vary(58, 78)
    line, hem, sleeves = a.vary(-26, -14), a.vary(80, 92), a.pick("straps", "cap", "none")
    belt, folds = a.pick("leather", "dark", "accent", "gold"), a.vary(0.2, 0.34)
    inner = 12 if sleeves == "straps" else 14
    if sleeves != "straps":
        a.fill(f"M{-inner - 5} -88Q0 -80 {inner + 5} -88L{inner} -60H{-inner}z", "dark")
        a.shadow(f"M{-inner - 5} -88Q0 -80 {inner + 5} -88L{inner} -60H{-inner}z", 0.35)
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


@product("skirt", "clothing", synonyms=("midi skirt", "pleated skirt"), materials=("wool", "cotton", "viscose"))
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


@product(
    "jeans", "clothing", synonyms=("denim trousers", "denim pants"), materials=("denim", "stretch denim", "cotton")
)
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


@product("hoodie", "clothing", synonyms=("hooded sweatshirt", "hoody"), materials=("fleece", "cotton", "french terry"))
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
    a.body(
        smooth(
            (0, -98),
            (hood * 0.7, -90),
            (hood, -64),
            (hood - 12, -40),
            (0, -26),
            (12 - hood, -40),
            (-hood, -64),
            (-hood * 0.7, -90),
        ),
        "ball",
    )
    a.fill(
        smooth(
            (0, -86), (hood * 0.5, -80), (hood * 0.6, -62), (0, -38), (0, -38), (-hood * 0.6, -62), (-hood * 0.5, -80)
        ),
        "dark",
    )
    a.shadow(
        smooth(
            (0, -86), (hood * 0.5, -80), (hood * 0.6, -62), (0, -38), (0, -38), (-hood * 0.6, -62), (-hood * 0.5, -80)
        ),
        0.5,
    )
    a.body(f"M{-w * 0.45} 18H{w * 0.45}L{w * 0.72} 44V{hem - 6}H{-w * 0.72}V44z", "flat")
    a.line(f"M{-w * 0.45} 18L{-w * 0.72} 44M{w * 0.45} 18L{w * 0.72} 44", 2.4, "dark")
    if zipped:
        a.line(f"M0 -26V{hem + 8}", 4, "dark")
        a.line(f"M0 -26V{hem + 8}", 2, "steel", 1, "2 2.4")
    drop = a.vary(2, 14)
    for _ in _sides(a):
        a.line(f"M8 -36Q13 -18 10 {drop - 6}", 3, "white")
        a.line(f"M10 {drop - 6}v5", 4, "steel")


@product(
    "rain jacket",
    "clothing",
    synonyms=("raincoat", "waterproof jacket"),
    materials=("nylon", "coated polyester", "rubberised cotton"),
)
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
    a.fill("M0 -86Q18 -84 21 -68Q20 -52 10 -44H-10Q-20 -52 -21 -68Q-18 -84 0 -86z", "dark")
    a.shadow("M0 -86Q18 -84 21 -68Q20 -52 10 -44H-10Q-20 -52 -21 -68Q-18 -84 0 -86z", 0.55)
    a.body("M-28 -86Q0 -108 28 -86Q24 -76 20 -74Q0 -90 -20 -74Q-24 -76 -28 -86z", "flat", "light")
    a.body(f"M-9 -46H9L10 {hem + 4}H-10z", "flat", "plain")
    for i in range(5):
        y = -36 + i * (hem + 30) / 5
        a.body(ellipse(0, y, 4.4), "ball", stud)


@product("sock", "clothing", synonyms=("crew sock", "ankle sock"), materials=("cotton", "merino wool", "bamboo"))
def sock(a: Art) -> None:
    w, top, toe, slope = a.vary(27, 32), a.vary(-96, -78), a.vary(64, 78), a.vary(0, 10)
    trim, rings = a.pick("light", "dark", "accent"), a.coin(0.5)
    outline = (
        f"M-62 {top}Q{-62 + w} {top + 5} {-62 + 2 * w} {top}L{-60 + 2 * w} 8Q{-52 + 2 * w} 24 {toe - 34} {30 + slope}"
        f"Q{toe + 14} {34 + slope} {toe + 14} {60 + slope}Q{toe + 10} {84 + slope} {toe - 20} {84 + slope}"
        f"Q10 {80 + slope} -30 78Q-66 76 -64 36z"
    )
    with a.group(scale=(a.pick(1, -1), 1)):
        a.body(outline, "soft")
        with a.group(clip=outline):
            a.body(ellipse(-62, 64, 40, 36), "flat", trim)
            a.body(ellipse(toe + 18, 62 + slope, 42, 48), "flat", trim)
            a.line(ellipse(-62, 64, 36, 32), 1.2, "black", 0.3, "3 2.5")
            a.body(rect(-80, top - 6, 120, 32), "flat", trim)
            for i in range(9):
                a.line(f"M{-60 + i * w / 4:.1f} {top}v24", 1.6, "black", 0.22)
            if rings:
                a.fill(rect(-80, top + 34, 120, 6), trim)
                a.fill(rect(-80, top + 45, 120, 6), trim)
            a.shadow(f"M{-64 + 2 * w} {top}h20L{toe} 40L{toe - 60} 42Q{-62 + 2 * w} 30 {-70 + 2 * w} 4z", 0.14)
            a.shadow(f"M-70 70Q0 76 {toe + 20} {76 + slope}V110H-70z", 0.2)
        a.line(outline, 1.4, "black", 0.3)


@product("sneaker", "clothing", synonyms=("trainer", "running shoe"), materials=("canvas", "mesh", "suede"))
def sneaker(a: Art) -> None:
    tongue, collar, sole = a.vary(-58, -46), a.vary(-36, -26), a.vary(18, 25)
    cap, tab, flash = a.coin(0.5), a.pick("dark", "light", "accent"), a.pick("bands", "disc", "none")
    upper = (
        f"M-86 34Q-92 0 -86 {collar}Q-76 {collar - 8} -66 {collar}Q-50 {collar + 18} -22 {tongue + 18}L-8 {tongue + 4}"
        f"Q20 -22 44 -6Q88 2 94 36z"
    )
    with a.group(scale=(a.pick(1, -1), 1), at=(0, 8)):
        a.body(f"M-26 {tongue + 26}L-20 {tongue - 10}Q-10 {tongue - 14} -2 {tongue - 4}L34 -8L0 10z", "flat", "light")
        a.body(upper, "soft")
        with a.group(clip=upper):
            a.body(f"M-100 {collar - 20}H-70Q-64 6 -78 40H-100z", "flat", tab)
            a.body(ellipse(94, 44, 42, 38) if cap else "M30 44Q50 20 100 16V44z", "flat", "white" if cap else "dark")
            if flash == "bands":
                a.line(f"M-86 26Q-40 -6 -12 {tongue + 20}", 8, tab)
                a.line(f"M-60 34Q-20 10 4 {tongue + 36}", 8, tab)
            elif flash == "disc":
                a.body(ellipse(-44, 8, 15), "flat", tab)
                a.line(ellipse(-44, 8, 11), 1.2, "black", 0.4, "3 2")
        a.line(f"M-66 {collar}Q-50 {collar + 18} -22 {tongue + 18}L-8 {tongue + 4}", 4.5, "dark")
        for i in range(4):
            x, y = -2 + i * 12, tongue + 14 + i * (-4 - tongue) * 0.24
            a.line(f"M{x - 12} {y + 9:.1f}L{x + 5} {y - 6:.1f}", 6.4, "black", 0.35)
            a.line(f"M{x - 12} {y + 9:.1f}L{x + 5} {y - 6:.1f}", 4.8, "white")
        a.body(f"M-92 30Q0 36 97 28Q102 {30 + sole} 84 {32 + sole}H-82Q-94 {32 + sole} -92 30z", "bar", "white")
        a.line(f"M-90 {24 + sole}Q0 {27 + sole} 96 {22 + sole}", 2.4, "plain")
        a.body(rect(-86, 28 + sole, 172, 7, 3), "flat", a.pick("rubber", "cork"))


@product("ankle boot", "clothing", synonyms=("chelsea boot", "bootie"), materials=("leather", "suede", "nubuck"))
def ankle_boot(a: Art) -> None:
    top, heel, w = a.vary(-82, -70), a.vary(14, 30), a.vary(30, 35)
    style, tone = a.pick("gore", "gore", "zip", "buckle"), a.pick("rubber", "dark wood")
    upper = (
        f"M-70 {top}Q{w - 70} {top + 7} {2 * w - 70} {top}Q{2 * w - 74} -20 {2 * w - 54} -4"
        f"Q50 10 80 24Q94 34 92 56H-72Q-78 20 -70 {top}z"
    )
    with a.group(scale=(a.pick(1, -1), 1), at=(-4, 0)):
        a.fill(ellipse(w - 70, top, w, 6), "dark")
        a.shadow(ellipse(w - 70, top, w, 6), 0.5)
        a.body(upper, "soft")
        with a.group(clip=upper):
            a.shadow(f"M{2 * w - 80} {top}Q{2 * w - 90} -10 {2 * w - 50} 14Q-10 10 {2 * w - 60} 0z", 0.2)
            a.shadow("M-80 60V40Q0 50 100 44V60z", 0.22)
            a.gloss("M50 18Q74 22 84 36Q70 28 48 26z", 0.3)
            a.line("M34 60Q30 26 54 6", 1.4, "black", 0.35, "4 2")
            if style == "gore":
                a.body(
                    f"M{w - 88} {top - 4}h34Q{w - 60} -20 {w - 70} -2Q{w - 84} -20 {w - 88} {top - 4}z", "flat", "black"
                )
                for i in range(4):
                    a.line(f"M{w - 83 + i * 8} {top + 8}L{w - 78 + i * 5} -24", 1.2, "white", 0.25)
            elif style == "zip":
                a.line(f"M{w - 72} {top}Q{w - 76} 0 {w - 70} 52", 5, "dark")
                a.line(f"M{w - 72} {top}Q{w - 76} 0 {w - 70} 52", 2.4, "gold", 1, "2 2.2")
            else:
                a.line(f"M-80 -6Q-30 8 {2 * w - 40} -12", 11, "dark")
        if style == "buckle":
            a.line(rect(w - 62, -9, 14, 16, 2), 3.2, "gold")
        elif style == "gore":
            a.line(f"M-69 {top}q-9 -6 -7 -14q6 -5 9 2l3 14", 3.4, "dark")
        a.body(f"M-73 54H92Q98 58 92 64H-10L-30 {64 + heel}H-72z", "flat", tone)
        a.body(rect(-6, 60, 100, 6 + heel * 0.25, 3), "flat", tone)


@product(
    "rain boot", "clothing", synonyms=("wellington boot", "rubber boot"), materials=("rubber", "natural rubber", "PVC")
)
def rain_boot(a: Art) -> None:
    top, w, ankle = a.vary(-93, -84), a.vary(31, 36), a.vary(24, 27)
    left, band, strap = -58, a.pick("light", "dark", "white"), a.coin(0.5)
    right = left + 2 * w
    boot = (
        f"M{left} {top}H{right}L{left + 2 * ankle + 10} 22Q{left + 2 * ankle + 16} 34 30 40Q70 46 72 80H{left - 2}"
        f"Q{left - 6} 56 {left + 6} 24z"
    )
    with a.group(scale=(a.pick(1, -1), 1)):
        a.fill(ellipse((left + right) / 2, top, w, 7), "dark")
        a.shadow(ellipse((left + right) / 2, top, w, 7), 0.5)
        a.body(boot, "tube")
        with a.group(clip=boot):
            a.body(ellipse(60, 88, 40, 34), "flat", band)
            a.body(f"M-80 84V50Q{left + 16} 52 {left + 22} 84z", "flat", band)
            a.body(f"M{left - 4} {top - 4}h{2 * w + 8}v20Q{left + w} {top + 24} {left - 4} {top + 16}z", "tube", band)
            a.shadow(f"M{left} 22Q-20 40 10 36Q-20 30 {left} 22z", 0.25)
            if strap:
                a.line(f"M{left - 4} {top + 40}Q{left + w} {top + 48} {right} {top + 40}", 8, "dark")
        if strap:
            a.body(rect(right - 24, top + 36, 11, 13, 2), "flat", "steel")
        a.gloss(smooth((left + 13, top + 28), (left + 19, top + 34), (left + 19, 8), (left + 14, 0)), 0.5)
        a.gloss("M30 48Q50 50 57 62Q44 55 30 55z", 0.5)
        a.body(f"M{left - 5} 78H76Q80 84 76 94H{left + 46}l-5 -5l-5 5H{left - 4}z", "bar", a.pick("rubber", band))
        for i in range(7):
            a.line(f"M{14 + i * 9} 87v6", 1.6, "black", 0.5)


@product("baseball cap", "clothing", synonyms=("cap", "peaked cap"), materials=("cotton twill", "canvas", "polyester"))
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


@product(
    "winter scarf", "clothing", synonyms=("knitted scarf", "muffler"), materials=("wool", "cashmere", "acrylic knit")
)
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
    ring = smooth(
        *((0, -92), (loop * 0.7, -88), (loop, -62), (loop * 0.6, -28)),
        *((0, -20), (-loop * 0.6, -28), (-loop, -62), (-loop * 0.7, -88)),
    )
    a.body(ring, "ball")
    hollow = smooth((-loop * 0.6, -78), (0, -90), (loop * 0.6, -78), (loop * 0.3, -66), (0, -63), (-loop * 0.3, -66))
    a.fill(hollow, "dark")
    a.shadow(hollow, 0.45)
    with a.group(clip=ring):
        for i in range(3):
            a.line(f"M{-loop} {-70 + i * 8}Q{-10 + i * 12} {-44 + i * 13} {loop} {-72 + i * 11}", 2.2, "black", 0.3)
        a.gloss(f"M{8 - loop} -66Q-20 -44 10 -50Q-20 -52 {12 - loop} -74z", 0.25)


@product("necktie", "clothing", synonyms=("tie", "neck tie"), materials=("silk", "silk twill", "polyester"))
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
