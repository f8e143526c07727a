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


@pytest.mark.parametrize("pair", PLURALS.replace("\n", " ").split(","))
def test_a_plural_has_the_stem_of_its_singular(pair: str) -> None:
    singular, plural = pair.split()
    assert stem(singular) == stem(plural) == stem(f"{singular}'s")
    assert is_plural(plural)
    assert not is_plural(singular)


@pytest.mark.parametrize("pair", DIFFERENT.replace("\n", " ").split(","))
def test_other_words_have_other_stems(pair: str) -> None:
    assert len({stem(word) for word in pair.split()}) == 2


@pytest.mark.parametrize("word", ["dress", "s", "'s", "größe", "語", "mug2", "dr"])
def test_never_removes_all_of_a_word(word: str) -> None:
    assert stem(word)
