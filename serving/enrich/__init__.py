"""Search texts of products: the agent that writes them with a language model, and the composer as its fallback."""
