"""The text of a product: the agent of language models, and the composer that stands in for it."""
