"""The text of Triton's metrics is read as prometheus_client reads it."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.triton_metrics import parse_metrics

TEXT = r"""# HELP nv_inference_count Number of inferences performed (does not include cached requests)
# TYPE nv_inference_count counter
nv_inference_count{model="crop",version="1"} 4
nv_inference_count{model="fit",version="2"} 1e+06
# TYPE vlclip_text_tokens histogram
vlclip_text_tokens_bucket{input="a, \"b\" {c}",le="8"} 2
vlclip_text_tokens_bucket{input="a, \"b\" {c}",le="+Inf"} 2
vlclip_text_tokens_sum{input="a, \"b\" {c}"} 9
vlclip_text_tokens_count{input="a, \"b\" {c}"} 2
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.5
"""


@pytest.mark.parametrize("text", ["", TEXT])
def test_finds_every_sample(text: str) -> None:
    # The library gives every counter the ending "_total", which Triton's counters do not have.
    expected = [
        (sample.name.removesuffix("_total"), sample.labels, sample.value, family.type)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    unescaped = [
        (name, {label: said.replace('\\"', '"') for label, said in labels.items()}, value, kind)
        for name, labels, value, kind in parse_metrics(text)
    ]
    assert unescaped == expected
