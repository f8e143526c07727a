"""PRODUCT, a shop's JSON, to TEXT, what a shopper would type to find it, with ROUNDS and STATUS.

The agent writes it where an endpoint is configured (``config.py`` says how), and else it is composed.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import numpy as np
import triton_python_backend_utils as pb_utils
from compose import compose
from config import Config
from meter import BUCKETS, METRICS
from product import Outcome, ProductError, parse
from tokens import Tokens

BATCH = 64
"""Products side by side; the agent itself says how many of them it works on at a time."""


class TritonPythonModel:
    def initialize(self, args):
        self.tokenize = Path(args["model_repository"]).parent / "tokenize"
        self.tokens = Tokens.served(self.tokenize)
        self.agent = self.metrics = None
        self.threads = ThreadPoolExecutor(BATCH)
        if config := Config.from_environment(os.environ):
            self.metrics = Metrics()
            self.agent = hire(config, self.tokens, self.metrics)

    def execute(self, requests):
        self.tokens = Tokens.served(self.tokenize, self.tokens)
        if self.agent:
            self.agent.tokens = self.tokens
        pending = [[self.threads.submit(self.enrich, *item) for item in items(request)] for request in requests]
        return [respond([item.result() for item in products]) for products in pending]

    def enrich(self, raw, image):
        """The text, how often a draft was judged, and the Outcome."""
        try:
            product = parse(raw)
        except ProductError:
            return "", 0, Outcome.NOT_A_PRODUCT
        if self.agent is None:
            return compose(product, self.tokens), 0, Outcome.COMPOSED
        enriched = self.agent.enrich(product, image)
        return enriched.text, enriched.rounds, enriched.status

    def finalize(self):
        self.threads.shutdown()
        if self.agent:
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
        self.numbers.put((name, "increment", amount, labels))

    def set(self, name, value):
        self.numbers.put((name, "set", value, {}))

    def observe(self, name, value):
        self.numbers.put((name, "observe", value, {}))

    def publish(self):
        while number := self.numbers.get():
            name, change, value, labels = number
            key = name, *sorted(labels.items())
            if key not in self.metrics:
                buckets = {"buckets": BUCKETS} if METRICS[name][0] == "histogram" else {}
                self.metrics[key] = self.families[name].Metric(labels=labels, **buckets)
            getattr(self.metrics[key], change)(value)

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
