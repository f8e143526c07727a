"""Text to TOKENS, by the tokenizer file that lies beside: it cleans, truncates and pads as its encoder expects.

Serves `tokenize` and `tokenize_prompt`, which differ in that file and in the name of their input.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer


class TritonPythonModel:
    def initialize(self, args):
        self.input_name = json.loads(args["model_config"])["input"][0]["name"]
        tokenizer_file = Path(args["model_repository"], args["model_version"], "tokenizer.json")
        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, self.input_name).as_numpy().ravel()
        # Text of blanks alone is an empty text, whatever the tokenizer makes of blanks.
        encodings = self.tokenizer.encode_batch_fast([text.decode(errors="replace").strip() for text in texts])
        tokens = np.array([encoding.ids for encoding in encodings], np.int64)
        return pb_utils.InferenceResponse([pb_utils.Tensor("TOKENS", tokens)])
