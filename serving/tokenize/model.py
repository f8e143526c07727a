"""Text to TOKENS, by the tokenizer file that lies beside: it cleans, truncates and pads as its encoder expects.

Serves `tokenize` and `tokenize_prompt`, which differ in that file, in the name of their input, and in `admission`: what
would wait too long is refused by the first step of a pipeline, and only there.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

from serving.admission import Admission
from serving.metrics import Metrics

FAMILIES = {
    "text_tokens": ("histogram", "Tokens of a text, with those that mark its ends, as far as the encoder reads"),
    "truncated_texts_total": ("counter", "Texts that are longer than the encoder reads"),
}
BUCKETS = {"text_tokens": [2, 4, 8, 16, 32, 64, 128, 256]}


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        self.admission = Admission.parse(parameters) if parameters else None
        self.input_name = config["input"][0]["name"]
        tokenizer_file = Path(args["model_repository"], args["model_version"], "tokenizer.json")
        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self.metrics = Metrics("vlclip_", FAMILIES, BUCKETS, input=self.input_name.lower())
        # A rate needs a series that begins at 0.
        self.metrics.add("truncated_texts_total", 0)

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, self.input_name).as_numpy().ravel()
        if refusal := self.admission and self.admission.refusal(len(texts)):
            error = pb_utils.TritonError(refusal, pb_utils.TritonError.UNAVAILABLE)
            return pb_utils.InferenceResponse(error=error)
        # Text of blanks alone is an empty text, whatever the tokenizer makes of blanks.
        encodings = self.tokenizer.encode_batch_fast([text.decode(errors="replace").strip() for text in texts])
        for encoding in encodings:
            self.metrics.observe("text_tokens", sum(encoding.attention_mask))
        self.metrics.add("truncated_texts_total", sum(bool(encoding.overflowing) for encoding in encodings))
        tokens = np.array([encoding.ids for encoding in encodings], np.int64)
        return pb_utils.InferenceResponse([pb_utils.Tensor("TOKENS", tokens)])

    def finalize(self):
        self.metrics.close()
