"""The Python that runs where Triton runs: the leaves, the backends, the model repository and the server."""
