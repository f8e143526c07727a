"""Socks, shoes and boots."""

from __future__ import annotations

from training.catalogue.art import Art, ellipse, rect, smooth


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


def ankle_boot(a: Art) -> None:
    top, heel, w = a.vary(-82, -70), a.vary(14, 30), a.vary(30, 35)
    style, tone = a.pick("gore", "gore", "zip", "buckle"), a.pick("rubber", "dark wood")
    upper = (
        f"M-70 {top}Q{w - 70} {top + 7} {2 * w - 70} {top}Q{2 * w - 74} -20 {2 * w - 54} -4"
        f"Q50 10 80 24Q94 34 92 56H-72Q-78 20 -70 {top}z"
    )
    with a.group(scale=(a.pick(1, -1), 1), at=(-4, 0)):
        a.hollow(ellipse(w - 70, top, w, 6), 0.5)
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


def rain_boot(a: Art) -> None:
    top, w, ankle = a.vary(-93, -84), a.vary(31, 36), a.vary(24, 27)
    left, band, strap = -58, a.pick("light", "dark", "white"), a.coin(0.5)
    right = left + 2 * w
    boot = (
        f"M{left} {top}H{right}L{left + 2 * ankle + 10} 22Q{left + 2 * ankle + 16} 34 30 40Q70 46 72 80H{left - 2}"
        f"Q{left - 6} 56 {left + 6} 24z"
    )
    with a.group(scale=(a.pick(1, -1), 1)):
        a.hollow(ellipse((left + right) / 2, top, w, 7), 0.5)
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
