"""Words of shops, in English: what can be seen of a product, who wears it, and what only sells it."""

from __future__ import annotations

import re

# A line is one family: the first word is what any of the others may be called as well. Words after a "/" mean the same.
COLOURS = """
black / jet ebony onyx noir
white / snow ivory cream eggshell alabaster pearl
grey / gray greyish grayish : charcoal anthracite slate silver ash graphite gunmetal
red / reddish : crimson scarlet burgundy maroon ruby cherry wine bordeaux vermilion brick rust
orange / orangish : tangerine apricot peach coral amber rust terracotta
yellow / yellowish : mustard lemon gold golden canary amber saffron ochre
green / greenish : olive khaki mint lime emerald sage teal forest moss jade turquoise pistachio
blue / bluish : navy azure cobalt teal turquoise sky indigo denim cyan aqua sapphire petrol
purple / violet : lilac lavender mauve plum aubergine magenta burgundy
pink / pinkish : rose fuchsia magenta salmon blush coral
brown / brownish : chocolate chestnut tan camel cognac mocha beige taupe bronze copper terracotta walnut
beige : sand taupe ecru cream camel khaki nude oatmeal
gold / golden gilded gilt : brass
silver / silvery : chrome steel
multicoloured / multicolored multicolour multicolor colourful colorful rainbow
transparent / clear see-through translucent
"""
PATTERNS = """
striped / stripe stripes stripy pinstripe pinstriped
checked / check checks checkered chequered checker plaid gingham tartan
dotted / dot dots polka dotty spotted spots
floral / flower flowers flowered flowery botanical
plain / solid one-colour one-color unicolour unicolor self-coloured
paisley
camouflage / camo
leopard / animal : zebra tiger
geometric / geometrical
herringbone
houndstooth
marbled / marble
embroidered / embroidery
"""
MATERIALS = """
wood / wooden timber : oak pine beech walnut bamboo teak acacia birch ash mahogany plywood
metal / metallic : steel stainless iron aluminium aluminum brass copper chrome titanium tin zinc
steel : stainless
aluminium / aluminum
leather / leathery : suede nubuck
cotton : denim corduroy canvas flannel jersey
wool / woolen woollen woolly : cashmere merino tweed felt
silk / silky
satin
linen
velvet / velour
polyester
nylon
plastic : acrylic polypropylene polyethylene vinyl pvc melamine polycarbonate
glass : crystal
ceramic / ceramics : porcelain stoneware earthenware terracotta china
stone : marble granite slate
rubber : silicone latex
paper / cardboard
rattan / wicker
fleece
fur / furry
faux : vegan imitation
"""
WEARERS = """
women / woman womens women's ladies lady's lady female her
men / man mens men's gents gentlemen male him
girls / girl girl's
boys / boy boy's
kids / kid kid's children childrens children's child junior youth
teens / teen teenagers teenager
babies / baby baby's babys infant infants newborn toddler toddlers
anyone / everyone everybody adults adult unisex all
"""
SHADES = "light dark deep pale bright pastel neon"
FILLER = """
new, new in, new arrival, new season, best seller, bestseller, best-seller, best selling, hot deal, hot item, top
rated, top seller, trendy, trending, must have, must-have, popular,
sale, on sale, deal, discount, discounted, clearance, offer, cheap, bargain, free shipping, free delivery, fast
shipping, fast delivery, express shipping, limited edition, limited time, special edition, special offer, exclusive,
ideal gift, as seen online, as seen on tv, ideal, collection, edition, buy now, order now, order today, shop now, shop
online, in stock, while stocks last,
gift, gift idea, great gift, perfect gift, gift for her, gift for him,
top quality, premium quality, high quality, best quality, super quality, quality, premium, luxury, amazing, awesome,
stylish, original, authentic, genuine, official, perfect, guaranteed, imported,
print, printed, pattern, patterned, design, colour, color,
size, one size, pack, pack of, piece, set of, xxs, xs, xl, xxl, xxxl, cm, mm, ml, kg, oz, lb, inch, inches, co, inc,
ltd, llc, gmbh
"""
DEPARTMENTS = """
accessories apparel appliances automotive bags beauty books clothing clothes electronics fashion food footwear
furniture garden grocery health home household jewellery jewelry kitchen kitchenware office outdoor outdoors pets
shoes sports toys
"""
LITTLE = "a an the and or of in on at to by for from with without your our my its this that these those is are it as"
OTHERS = """
also other others another available choose choice option options variant variants assorted differ vary match
matches matching pair goes not never no instead unlike than
"""
"""In a sentence that may speak of other things than this product."""


def any_of(phrases: list[str]) -> re.Pattern[str]:
    """One of them as whole words, in singular or plural, the longest first."""
    longest_first = sorted((phrase.strip() for phrase in phrases), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})s?\b", re.I)


def families(table: str) -> dict[str, frozenset[str]]:
    """Each word to the words that justify it: itself, its synonyms, and for a family's name all of the family."""
    justify: dict[str, set[str]] = {}
    for line in table.strip().splitlines():
        same, _, narrower = line.partition(":")
        same_words = same.replace("/", " ").split()
        for word in same_words:
            justify.setdefault(word, set()).update(same_words, narrower.split())
        for word in narrower.split():
            justify.setdefault(word, set()).add(word)
    return {word: frozenset(words) for word, words in justify.items()}


def heads(table: str) -> dict[str, str]:
    """Each word to the first of those that mean the same; a narrower word to itself."""
    found: dict[str, str] = {}
    for line in table.strip().splitlines():
        same, _, narrower = line.partition(":")
        head, *others = same.replace("/", " ").split()
        found |= {word: found.get(word, word) for word in narrower.split()}
        found |= {head: head, **{word: found.get(word, head) for word in others}}
    return found
