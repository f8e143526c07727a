"""Text to TOKENS, by the tokenizer file that lies beside: it cleans, truncates and pads as its encoder expects.

Serves `tokenize` and `tokenize_prompt`, which differ in that file, in the name of their input, and in `admission`: what
would wait too long is refused by the first step of a pipeline, and only there.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from admission import Admission
from tokenizers import Tokenizer


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        self.admission = Admission.parse(parameters) if parameters else None
        self.input_name = config["input"][0]["name"]
        tokenizer_file = Path(args["model_repository"], args["model_version"], "tokenizer.json")
        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, self.input_name).as_numpy().ravel()
        if refusal := self.admission and self.admission.refusal(len(texts)):
            error = pb_utils.TritonError(refusal, pb_utils.TritonError.UNAVAILABLE)
            return pb_utils.InferenceResponse(error=error)
        # Text of blanks alone is an empty text, whatever the tokenizer makes of blanks.
        encodings = self.tokenizer.encode_batch_fast([text.decode(errors="replace").strip() for text in texts])
        tokens = np.array([encoding.ids for encoding in encodings], np.int64)
        return pb_utils.InferenceResponse([pb_utils.Tensor("TOKENS", tokens)])
