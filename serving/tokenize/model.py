"""Text to TOKENS, by the tokenizer file of the model's version: it cleans, truncates and pads as its encoder expects.

Serves ``tokenize`` and ``tokenize_prompt``, the first steps of pipelines. They differ in that file and in their inputs.
Triton passes them one request at a time, so that a request that is not well formed fails alone. They refuse requests if
their config asks for admission, and read no more than ``max_characters`` of a text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

from serving.admission import Admission
from serving.leaf import column_of, parameters_of, refuse
from serving.metrics import Kind, Metrics
from serving.texts import beginning

FAMILIES: dict[str, tuple[Kind, str]] = {
    "text_tokens": ("histogram", "Tokens per text, with start and end tokens, after truncation"),
    "truncated_texts_total": ("counter", "Texts that are longer than what is read of them"),
}
BUCKETS = {"text_tokens": [2, 4, 8, 16, 32, 64, 128, 256]}


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        parameters = parameters_of(args)
        self.admission = Admission.open(parameters)
        self.max_characters = int(parameters["max_characters"])
        self.input_name: str = json.loads(args["model_config"])["input"][0]["name"]
        tokenizer_file = Path(args["model_repository"], args["model_version"], "tokenizer.json")
        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self.metrics = Metrics("vlclip_", FAMILIES, BUCKETS, input=self.input_name.lower())
        self.metrics.add("truncated_texts_total", 0)

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        return [self.answer(request) for request in requests]

    def answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        columns = {tensor.name(): column_of(tensor) for tensor in request.inputs()}
        rows = max(map(len, columns.values()))
        if self.admission and "ENRICHED" not in columns and (refusal := self.admission.refusal(rows)):
            return refuse(refusal)
        if self.input_name not in columns:
            return pb_utils.InferenceResponse([pb_utils.Tensor("TRUNCATED", np.zeros((rows, 1), bool))])
        return self.tokenize(columns[self.input_name])

    def tokenize(self, texts: Sequence[bytes]) -> pb_utils.InferenceResponse:
        read, is_cut = zip(*(beginning(text, self.max_characters) for text in texts), strict=True)
        # A text of blanks is an empty text, whatever the tokenizer makes of blanks.
        encodings = self.tokenizer.encode_batch_fast([text.strip() for text in read])
        for encoding in encodings:
            self.metrics.observe("text_tokens", sum(encoding.attention_mask))
        truncated = np.array(is_cut) | [bool(encoding.overflowing) for encoding in encodings]
        self.metrics.add("truncated_texts_total", int(truncated.sum()))
        tokens = np.array([encoding.ids for encoding in encodings], np.int64)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("TOKENS", tokens), pb_utils.Tensor("TRUNCATED", truncated[:, None])]
        )

    def finalize(self) -> None:
        self.metrics.close()
