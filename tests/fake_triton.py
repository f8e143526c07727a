"""A fake of ``triton_python_backend_utils``, which exists only in Triton's own Python processes.

This module is the seam between our leaves and Triton. With the fake, a test calls a leaf as Triton does, then reads its
responses and the metrics that it published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt


class TritonError:
    UNAVAILABLE = 14

    def __init__(self, message: str, code: int = 0) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class Tensor:
    def __init__(self, name: str, array: npt.NDArray[Any]) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> npt.NDArray[Any]:
        return self._array

    def is_cpu(self) -> bool:
        return True

    @staticmethod
    def from_dlpack(name: str, tensor: Any) -> Tensor:
        return Tensor(name, np.from_dlpack(tensor))

    def __dlpack__(self, *, stream: Any = None) -> Any:
        return self._array.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


class InferenceRequest:
    def __init__(self, model_name: str, requested_output_names: Sequence[str], inputs: Sequence[Tensor]) -> None:
        self._wanted, self._inputs = list(requested_output_names), list(inputs)

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def requested_output_names(self) -> list[str]:
        return self._wanted


class InferenceResponse:
    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        self._tensors, self._error = list(output_tensors), error

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors


class Logger:
    @staticmethod
    def log_warn(message: str) -> None:
        pass

    @staticmethod
    def log_error(message: str) -> None:
        pass


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


class Metric:
    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels
        self.values: list[float] = []

    def increment(self, value: float) -> None:
        self.values.append(value)

    set = observe = increment


class MetricFamily:
    COUNTER, GAUGE, HISTOGRAM = range(3)
    published: ClassVar[dict[str, list[Metric]]] = {}
    """The metrics of every name, of all families since the start of the tests."""

    def __init__(self, name: str, description: str, kind: int) -> None:
        self._metrics = self.published.setdefault(name, [])

    def Metric(self, labels: Mapping[str, str], buckets: Sequence[float] = ()) -> Metric:
        self._metrics.append(Metric(labels))
        return self._metrics[-1]


def published(name: str, **labels: str) -> list[float]:
    """All values that were sent for a metric with these labels among its own, oldest first."""
    found = [metric for metric in MetricFamily.published.get(name, []) if labels.items() <= metric.labels.items()]
    return [value for metric in found for value in metric.values]
