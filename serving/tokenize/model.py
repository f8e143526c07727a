"""Text to TOKENS, by the tokenizer file of the model's version: it cleans, truncates and pads as its encoder expects.

Serves ``tokenize`` and ``tokenize_prompt``. They differ in that file, in the name of their input, and in whether their
config asks for admission.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

from serving.admission import Admission
from serving.leaf import array_of, parameters_of, refuse
from serving.metrics import Kind, Metrics

FAMILIES: dict[str, tuple[Kind, str]] = {
    "text_tokens": ("histogram", "Tokens per text, with start and end tokens, after truncation"),
    "truncated_texts_total": ("counter", "Texts that are longer than the encoder reads"),
}
BUCKETS = {"text_tokens": [2, 4, 8, 16, 32, 64, 128, 256]}


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        self.admission = Admission.open(parameters_of(args))
        self.input_name: str = json.loads(args["model_config"])["input"][0]["name"]
        tokenizer_file = Path(args["model_repository"], args["model_version"], "tokenizer.json")
        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self.metrics = Metrics("vlclip_", FAMILIES, BUCKETS, input=self.input_name.lower())
        self.metrics.add("truncated_texts_total", 0)

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        return [self.answer(request) for request in requests]

    def answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        texts = array_of(request, self.input_name).ravel()
        if self.admission and (refusal := self.admission.refusal(len(texts))):
            return refuse(refusal)
        # A text of blanks is an empty text, whatever the tokenizer makes of blanks.
        encodings = self.tokenizer.encode_batch_fast([text.decode(errors="replace").strip() for text in texts])
        for encoding in encodings:
            self.metrics.observe("text_tokens", sum(encoding.attention_mask))
        self.metrics.add("truncated_texts_total", sum(bool(encoding.overflowing) for encoding in encodings))
        tokens = np.array([encoding.ids for encoding in encodings], np.int64)
        return pb_utils.InferenceResponse([pb_utils.Tensor("TOKENS", tokens)])

    def finalize(self) -> None:
        self.metrics.close()
