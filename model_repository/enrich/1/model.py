"""PRODUCT, a shop's JSON, to TEXT, what a shopper would type to find it, with ROUNDS and STATUS."""

from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from compose import compose
from product import Outcome, ProductError, parse
from tokens import Tokens


class TritonPythonModel:
    def initialize(self, args):
        self.tokenize = Path(args["model_repository"]).parent / "tokenize"
        self.tokens = Tokens.served(self.tokenize)

    def execute(self, requests):
        self.tokens = Tokens.served(self.tokenize, self.tokens)
        return [respond([self.enrich(*item) for item in items(request)]) for request in requests]

    def enrich(self, raw, image):
        """The text, how often it was written, and the Outcome."""
        try:
            product = parse(raw)
        except ProductError:
            return "", 0, Outcome.NOT_A_PRODUCT
        return compose(product, self.tokens), 0, Outcome.COMPOSED


def items(request):
    """Each product with its image, which may be of no bytes."""
    columns = (pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel() for name in ("PRODUCT", "IMAGE"))
    return zip(*columns, strict=True)


def respond(enriched):
    text, rounds, status = zip(*enriched, strict=True)
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor("TEXT", np.array([[one.encode()] for one in text], object)),
            pb_utils.Tensor("ROUNDS", np.array(rounds, np.int32)[:, None]),
            pb_utils.Tensor("STATUS", np.array(status, np.int32)[:, None]),
        ]
    )
