"""PRODUCT, a shop's JSON, to TEXT, what a shopper would type to find it, with ROUNDS, STATUS and PROMPTS.

The agent writes it where an endpoint is configured (``config.py`` says how), and else it is composed.
"""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import numpy as np
import triton_python_backend_utils as pb_utils
from compose import compose
from config import Config
from meter import BUCKETS, METRICS
from photo import show
from product import Enriched, Outcome, ProductError, parse
from tokens import Tokens

NO_PRODUCT = Enriched("", 0, Outcome.NOT_A_PRODUCT)
REQUESTS = 32
"""That wait for the agent at a time; the agent itself says how many products it works on."""


class TritonPythonModel:
    def initialize(self, args):
        self.tokenize = Path(args["model_repository"]).parent / "tokenize"
        self.tokens = Tokens.served(self.tokenize)
        self.agent = None
        if config := Config.from_environment(os.environ):
            self.metrics = Metrics()
            self.agent = hire(config, self.tokens, self.metrics)
            self.waiting = ThreadPoolExecutor(REQUESTS)

    def execute(self, requests):
        self.tokens = Tokens.served(self.tokenize, self.tokens)
        if self.agent is None:
            return [respond([self.compose(raw) for raw, _ in items(request)]) for request in requests]
        # Answered later, each by itself, so that no request waits for the slowest product of another.
        self.agent.tokens = self.tokens
        for request in requests:
            self.waiting.submit(self.answer, request.get_response_sender(), list(items(request)))
        return None

    def compose(self, raw):
        product = read(raw)
        return Enriched(compose(product, self.tokens), 0, Outcome.COMPOSED) if product else NO_PRODUCT

    def answer(self, sender, rows):
        try:
            products = [read(raw) for raw, _ in rows]
            images = self.look(products, [image for _, image in rows])
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


class Metrics:
    """Publishes the agent's numbers as ``vlclip_agent_…``, from a thread of its own: each is a message to Triton, and
    the agent's event loop waits for none.
    """

    def __init__(self):
        kinds = {"counter": "COUNTER", "gauge": "GAUGE", "histogram": "HISTOGRAM"}
        self.families = {
            name: pb_utils.MetricFamily(f"vlclip_agent_{name}", says, getattr(pb_utils.MetricFamily, kinds[kind]))
            for name, (kind, says) in METRICS.items()
        }
        self.metrics = {}
        self.numbers = SimpleQueue()
        self.thread = Thread(target=self.publish, name="agent-metrics")
        self.thread.start()

    def add(self, name, amount=1, **labels):
        self.numbers.put((name, "increment", amount, tuple(sorted(labels.items()))))

    def set(self, name, value):
        self.numbers.put((name, "set", value, ()))

    def observe(self, name, value):
        self.numbers.put((name, "observe", value, ()))

    def publish(self):
        going_on = True
        while going_on:
            numbers = [self.numbers.get()]
            while not self.numbers.empty():
                numbers.append(self.numbers.get())
            going_on = None not in numbers
            self.send(filter(None, numbers))

    def send(self, numbers):
        """Counts are added up before, since a message costs as much for one as for many."""
        sums = Counter()
        for name, change, value, labels in numbers:
            if change == "increment":
                sums[name, labels] += value
            else:
                getattr(self.metric(name, labels), change)(value)
        for (name, labels), value in sums.items():
            self.metric(name, labels).increment(value)

    def metric(self, name, labels):
        if (name, labels) not in self.metrics:
            buckets = {"buckets": BUCKETS} if METRICS[name][0] == "histogram" else {}
            self.metrics[name, labels] = self.families[name].Metric(labels=dict(labels), **buckets)
        return self.metrics[name, labels]

    def close(self):
        self.numbers.put(None)
        self.thread.join()
        # Triton wants a family deleted after its metrics.
        self.metrics.clear()
        self.families.clear()


def hire(config, tokens, metrics):
    try:
        # Without an endpoint the agent's package need not be there.
        from agent import Agent
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


def respond(enriched):
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor("TEXT", np.array([[one.text.encode()] for one in enriched], object)),
            pb_utils.Tensor("ROUNDS", np.array([[one.rounds] for one in enriched], np.int32)),
            pb_utils.Tensor("STATUS", np.array([[one.status] for one in enriched], np.int32)),
            pb_utils.Tensor("PROMPTS", np.array([[one.prompts.encode()] for one in enriched], object)),
        ]
    )
