"""How words are compared."""

from __future__ import annotations

import pytest

from serving.enrich.words import is_plural, stem

PLURALS = """
dress dresses, glass glasses, mattress mattresses, necklace necklaces, dish dishes, brush brushes, watch watches,
box boxes, axe axes, vase vases, house houses, blouse blouses, size sizes, rose roses, bus buses, lens lenses,
canvas canvases, gas gases, cactus cactuses, shoe shoes, potato potatoes, photo photos, sofa sofas, bra bras,
leaf leaves, scarf scarves, scarf scarfs, knife knives, shelf shelves, bookshelf bookshelves, loaf loaves,
glove gloves, sleeve sleeves, olive olives, battery batteries, berry berries, tie ties, movie movies, hoodie hoodies,
toy toys, tray trays, mug mugs, table tables, bag bags, jean jeans, short shorts
"""
DIFFERENT = """
bed bedding, organic organizer, light lighting, coat coating, train training, cap cape, tub tube, bath bathe,
cloth clothes, pin pine, glass glove, bus bu, mos moss, las lass, brass bra, gold golden
"""


def pairs(table: str) -> list[tuple[str, ...]]:
    return [tuple(pair.split()) for pair in table.replace("\n", " ").split(",")]


@pytest.mark.parametrize(("singular", "plural"), pairs(PLURALS))
def test_a_plural_has_the_stem_of_its_singular(singular: str, plural: str) -> None:
    assert stem(singular) == stem(plural) == stem(f"{singular}'s")
    assert (is_plural(singular), is_plural(plural)) == (False, True)


@pytest.mark.parametrize(("one", "other"), pairs(DIFFERENT))
def test_other_words_have_other_stems(one: str, other: str) -> None:
    assert stem(one) != stem(other)
