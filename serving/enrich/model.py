"""PRODUCT, a shop's JSON, to TEXT, what a shopper would type to find it, with ROUNDS, STATUS and PROMPTS.

The agent writes it where an endpoint is configured (``config.py`` says how), and else it is composed.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
import triton_python_backend_utils as pb_utils

from serving.enrich.compose import compose
from serving.enrich.config import Config
from serving.enrich.meter import BUCKETS, METRICS
from serving.enrich.photo import show
from serving.enrich.product import Enriched, Outcome, ProductError, parse
from serving.enrich.tokens import Tokens
from serving.metrics import Metrics

NO_PRODUCT = Enriched("", 0, Outcome.NOT_A_PRODUCT)
REQUESTS = 32
"""That wait for the agent at a time; the agent itself says how many products it works on."""


class TritonPythonModel:
    def initialize(self, args):
        self.tokenize = Path(args["model_repository"]).parent / "tokenize"
        self.tokens = Tokens.served(self.tokenize)
        self.agent = None
        if config := Config.from_environment(os.environ):
            self.metrics = Metrics("vlclip_agent_", METRICS, BUCKETS)
            self.agent = hire(config, self.tokens, self.metrics)
            self.waiting = ThreadPoolExecutor(REQUESTS)
            self.lock, self.in_hand = Lock(), 0

    def execute(self, requests):
        self.tokens = Tokens.served(self.tokenize, self.tokens)
        if self.agent is None:
            return [respond([self.compose(raw) for raw, _ in items(request)]) for request in requests]
        # Answered later, each by itself, so that no request waits for the slowest product of another.
        self.agent.tokens = self.tokens
        vision, most = self.agent.config.vision, self.agent.config.waiting
        for request in requests:
            sender = request.get_response_sender()
            # Those that wait may be many: photos that nobody looks at are not kept.
            rows = [(read(raw), image if vision else b"") for raw, image in items(request)]
            number = sum(product is not None for product, _ in rows)
            if not number:
                # Probes ask about an empty product: a slow language model is no reason to take a server out.
                self.answer(sender, rows)
            elif self.in_hand and self.in_hand + number > most:
                refuse(
                    sender, f"overloaded: {self.in_hand} products wait for the agent, {most} at most: try again later"
                )
            else:
                self.add(number)
                self.waiting.submit(self.answer, sender, rows).add_done_callback(lambda _, n=number: self.add(-n))
        return None

    def add(self, number):
        with self.lock:
            self.in_hand += number

    def compose(self, raw):
        product = read(raw)
        return Enriched(compose(product, self.tokens), 0, Outcome.COMPOSED) if product else NO_PRODUCT

    def answer(self, sender, rows):
        try:
            products, images = zip(*rows, strict=True)
            images = self.look(products, images)
            pending = [
                product and self.agent.submit(product, image) for product, image in zip(products, images, strict=True)
            ]
            response = respond([enriched.result() if enriched else NO_PRODUCT for enriched in pending])
        except Exception as error:
            response = pb_utils.InferenceResponse(error=pb_utils.TritonError(f"enrich: {type(error).__name__}"))
        sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def look(self, products, images):
        """What the agent is shown beside each product; without images where it takes none, or none can be grounded."""
        if not self.agent.config.vision:
            return [b""] * len(images)
        try:
            types = [product.product_type if product else "" for product in products]
            return show(
                ask, [image if product else b"" for product, image in zip(products, images, strict=True)], types
            )
        except pb_utils.TritonModelException as error:
            pb_utils.Logger.log_warn(f"enrich: the agent sees no photo, {error}")
            return [b""] * len(images)

    def finalize(self):
        if self.agent:
            self.waiting.shutdown()
            self.agent.close()
            self.metrics.close()


def hire(config, tokens, metrics):
    try:
        # Without an endpoint the agent's package need not be there.
        from serving.enrich.agent import Agent
    except ModuleNotFoundError as error:
        raise pb_utils.TritonModelException(
            f"VLCLIP_AGENT_URL is set, and the agent needs {error.name}: pip install 'vlclip[agent]'"
        ) from None
    return Agent(config, tokens, metrics)


def read(raw):
    try:
        return parse(raw)
    except ProductError:
        return None


def ask(model, outputs, **inputs):
    """The outputs of a model of this server, in the memory of the host."""
    answer = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=outputs,
        inputs=[pb_utils.Tensor(name, values) for name, values in inputs.items()],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    ).exec()
    if answer.has_error():
        raise pb_utils.TritonModelException(answer.error().message())
    return {name: pb_utils.get_output_tensor_by_name(answer, name).as_numpy() for name in outputs}


def items(request):
    """Each product with its image, which may be of no bytes."""
    columns = (pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel() for name in ("PRODUCT", "IMAGE"))
    return zip(*columns, strict=True)


def refuse(sender, why):
    error = pb_utils.TritonError(why, pb_utils.TritonError.UNAVAILABLE)
    sender.send(pb_utils.InferenceResponse(error=error), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def respond(enriched):
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor("TEXT", np.array([[one.text.encode()] for one in enriched], object)),
            pb_utils.Tensor("ROUNDS", np.array([[one.rounds] for one in enriched], np.int32)),
            pb_utils.Tensor("STATUS", np.array([[one.status] for one in enriched], np.int32)),
            pb_utils.Tensor("PROMPTS", np.array([[one.prompts.encode()] for one in enriched], object)),
        ]
    )
