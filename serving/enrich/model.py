"""PRODUCT, a shop's JSON, to TEXT, what a shopper would type to find it, with ROUNDS, STATUS and PROMPTS.

The agent writes the text if an endpoint is configured (see ``config``). Otherwise ``compose`` makes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from serving.admission import Admission
from serving.enrich.compose import compose
from serving.enrich.config import Config
from serving.enrich.meter import BUCKETS, METRICS
from serving.enrich.photo import show
from serving.enrich.product import Enriched, Outcome, Product, ProductError, parse
from serving.enrich.tokens import Tokens
from serving.leaf import column_of, fail, input_of, parameters_of, refuse
from serving.metrics import Metrics

if TYPE_CHECKING:
    from serving.enrich.agent import Agent

NO_PRODUCT = Enriched("", 0, Outcome.NOT_A_PRODUCT)
REQUESTS = 32
"""Requests that wait for the agent at a time. The agent limits how many products it works on."""

Row = tuple[Product | None, bytes]
"""A product, or None if its JSON holds none, and its image, which may be empty."""


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        self.admission = Admission.open(parameters_of(args))
        self.tokenize = Path(args["model_repository"]).parent / "tokenize"
        self.tokens = Tokens.served(self.tokenize)
        config = Config.from_environment(os.environ)
        self.queue = AgentQueue(config, self.tokens) if config else None

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse] | None:
        self.tokens = Tokens.served(self.tokenize, self.tokens)
        if self.queue is None:
            return [self.composed(self.admit(request)) for request in requests]
        self.queue.agent.tokens = self.tokens
        for request in requests:
            self.queue.add(request.get_response_sender(), self.admit(request))
        # The queue sends each response on its own, so that no request waits for the products of another.
        return None

    def admit(self, request: pb_utils.InferenceRequest) -> list[Row] | pb_utils.InferenceResponse:
        """The rows of a request, or the response to one that is refused before any work is done for it."""
        rows = rows_of(request)
        refusal = self.admission.refusal(len(rows)) if self.admission else None
        return refuse(refusal) if refusal else rows

    def composed(self, rows: list[Row] | pb_utils.InferenceResponse) -> pb_utils.InferenceResponse:
        return respond(rows, [self.compose(product) for product, _ in rows]) if isinstance(rows, list) else rows

    def compose(self, product: Product | None) -> Enriched:
        return Enriched(compose(product, self.tokens), 0, Outcome.COMPOSED) if product else NO_PRODUCT

    def finalize(self) -> None:
        if self.queue:
            self.queue.close()


class AgentQueue:
    """Requests that wait for the agent. A request that comes while too many products wait is refused."""

    def __init__(self, config: Config, tokens: Tokens) -> None:
        self.metrics = Metrics("vlclip_agent_", METRICS, BUCKETS)
        self.agent = open_agent(config, tokens, self.metrics)
        self.threads = ThreadPoolExecutor(REQUESTS)
        self.lock, self.products = Lock(), 0

    def add(self, sender: pb_utils.ResponseSender, rows: list[Row] | pb_utils.InferenceResponse) -> None:
        if not isinstance(rows, list):
            send(sender, rows)
            return
        vision, limit = self.agent.config.vision, self.agent.config.waiting
        # Many requests may wait, so an image that the agent does not look at is not kept.
        rows = [(product, image if product and vision else b"") for product, image in rows]
        number = sum(product is not None for product, _ in rows)
        if not number:
            # Probes send an empty product. They are answered at once, so that a slow language model does not make the
            # server look unhealthy.
            self.answer(sender, rows)
        elif self.products and self.products + number > limit:
            message = f"overloaded: {self.products} products wait for the agent, {limit} at most: try again later"
            send(sender, refuse(message))
        else:
            self.count(number)
            self.threads.submit(self.answer, sender, rows).add_done_callback(lambda _: self.count(-number))

    def count(self, number: int) -> None:
        with self.lock:
            self.products += number

    def answer(self, sender: pb_utils.ResponseSender, rows: Sequence[Row]) -> None:
        try:
            shown = zip(rows, crops_of(rows), strict=True)
            pending = [self.agent.submit(product, crop) if product else None for (product, _), crop in shown]
            response = respond(rows, [enriched.result() if enriched else NO_PRODUCT for enriched in pending])
        except Exception as error:
            response = fail(f"enrich: {type(error).__name__}")
        send(sender, response)

    def close(self) -> None:
        self.threads.shutdown()
        self.agent.close()
        self.metrics.close()


def open_agent(config: Config, tokens: Tokens, metrics: Metrics) -> Agent:
    try:
        # Without an endpoint, the agent's packages need not be installed.
        from serving.enrich.agent import Agent
    except ModuleNotFoundError as error:
        raise pb_utils.TritonModelException(
            f"VLCLIP_AGENT_URL is set, but the agent needs {error.name}: pip install {error.name}, "
            "or in a checkout of VL-CLIP: pip install --editable './serving[agent]'"
        ) from None
    return Agent(config, tokens, metrics)


def crops_of(rows: Sequence[Row]) -> list[bytes]:
    """The grounded crop of each image. If the models for it fail, the agent works on the texts alone."""
    try:
        return show(ask, [image for _, image in rows], [product.product_type if product else "" for product, _ in rows])
    except pb_utils.TritonModelException as error:
        pb_utils.Logger.log_warn(f"enrich: the agent gets no photo: {error}")
        return [b""] * len(rows)


def rows_of(request: pb_utils.InferenceRequest) -> list[Row]:
    products, images = (column_of(input_of(request, name)) for name in ("PRODUCT", "IMAGE"))
    return [(read(raw), image) for raw, image in zip(products, images, strict=True)]


def read(raw: bytes) -> Product | None:
    try:
        return parse(raw)
    except ProductError:
        return None


def ask(model: str, outputs: Sequence[str], **inputs: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """The outputs of another model of this server, in host memory. Raises TritonModelException."""
    answer = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=outputs,
        inputs=[pb_utils.Tensor(name, values) for name, values in inputs.items()],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    ).exec()
    if answer.has_error():
        raise pb_utils.TritonModelException(answer.error().message())
    return {tensor.name(): tensor.as_numpy() for tensor in answer.output_tensors()}


def send(sender: pb_utils.ResponseSender, response: pb_utils.InferenceResponse) -> None:
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def respond(rows: Sequence[Row], enriched: Sequence[Enriched]) -> pb_utils.InferenceResponse:
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor("TEXT", np.array([[one.text.encode()] for one in enriched], object)),
            pb_utils.Tensor("ROUNDS", np.array([[one.rounds] for one in enriched], np.int32)),
            pb_utils.Tensor("STATUS", np.array([[one.status] for one in enriched], np.int32)),
            pb_utils.Tensor("PROMPTS", np.array([[one.prompts.encode()] for one in enriched], object)),
            pb_utils.Tensor("TRUNCATED", np.array([[bool(product and product.truncated)] for product, _ in rows])),
        ]
    )
