"""Imports gRPC with its documented log level, ERROR.

Recent versions of gRPC log each failed connection otherwise. gRPC reads GRPC_VERBOSITY when it is imported, so this
module must be imported before all others. A GRPC_VERBOSITY of the user is respected, and the environment is restored.
"""

import os
from importlib import import_module

if "GRPC_VERBOSITY" not in os.environ:
    os.environ["GRPC_VERBOSITY"] = "ERROR"
    try:
        import_module("grpc")
    finally:
        del os.environ["GRPC_VERBOSITY"]
