"""A text about a product from its metadata alone: the same for the same product, always."""

from __future__ import annotations

from product import Product
from tokens import Tokens


def compose(product: Product, tokens: Tokens) -> str:
    """What a shopper would type to find it."""
    parts = [product.product_type, product.title, *product.attributes.values()]
    return tokens.cut(" ".join(" ".join(parts).split()))
