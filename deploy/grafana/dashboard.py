"""The dashboard, panel by panel: Triton's metrics, ours, and what deploy/prometheus/rules make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import TypeVar

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode, VariableRefresh
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

AnyPanel = TypeVar("AnyPanel", timeseries.Panel, stat.Panel)
SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")
PIPELINES = "product_image|whole_image|ground|product_text|enriched_text"
OURS = 'job="vlclip",instance=~"$instance"'
ASKED = f'{OURS},model=~"{PIPELINES}"'
STEPS = f'{OURS},model!~"{PIPELINES}"'
WIDTH, HEIGHT = 8, 7
"""Of a panel, in Grafana's units: a line of panels is 24 wide."""


def rate(metric: str, labels: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def mean(durations: str, labels: str) -> str:
    """Seconds per request of each model: ``durations`` are names of Triton's counters between nv_inference_ and _us."""
    spent = " + ".join(rate(f"nv_inference_{one}_duration_us", labels, "model") for one in durations.split())
    return f"({spent}) / {rate('nv_inference_request_success', labels, 'model')} / 1e6"


def percentile(q: float, histogram: str, by: str = "") -> str:
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', OURS, f'le, {by}' if by else 'le')})"


def slowest_server(quantile: str) -> str:
    return f'max by (model) (nv_inference_request_summary_us{{{ASKED},quantile="{quantile}"}}) / 1e6'


def calling(gauge: str) -> str:
    """The sum over processes that call: one that died leaves its last word."""
    calls = f"sum by (instance, pid) (increase(vlclip_agent_calls{{{OURS}}}[5m]))"
    return f"sum({gauge}{{{OURS}}} and on (instance, pid) {calls} > 0)"


def lines(title: str, unit: str, queries: Mapping[str, str], says: str = "", stacked: bool = False) -> timeseries.Panel:
    """A panel of lines from 0 on, with the name of each of ``queries`` as its legend."""
    panel = timeseries.Panel().title(title).unit(unit).description(says).datasource(SOURCE).min(0)
    panel = (
        panel.span(WIDTH)
        .height(HEIGHT)
        .fill_opacity(40 if stacked else 8)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    return ask(panel, queries)


def number(title: str, unit: str, query: str, says: str = "", red_below: float | None = None) -> stat.Panel:
    panel = stat.Panel().title(title).unit(unit).description(says).datasource(SOURCE).span(WIDTH).height(4)
    if red_below is not None:
        panel = panel.decimals(2).thresholds(steps(("red", None), ("green", red_below)))
    return ask(panel, {"": query})


def densities(title: str, unit: str, histogram: str, says: str = "") -> heatmap.Panel:
    """A heatmap of a Prometheus histogram over time."""
    panel = heatmap.Panel().title(title).description(says).datasource(SOURCE).span(WIDTH).height(HEIGHT)
    panel = panel.y_axis(heatmap.YAxisConfig().unit(unit))
    panel = panel.color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64))
    query = f"sum by (le) (increase({histogram}_bucket{{{OURS}}}[$__rate_interval]))"
    return panel.with_target(target(query, "{{le}}").format(PromQueryFormat.HEATMAP))


def ask(panel: AnyPanel, queries: Mapping[str, str]) -> AnyPanel:
    for number, (legend, query) in enumerate(queries.items()):
        panel = panel.with_target(target(query, legend, number))
    return panel


def target(query: str, legend: str, number: int = 0) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query).legend_format(legend).ref_id(chr(ord("A") + number)).datasource(SOURCE)


def steps(*colours: tuple[str, float | None]) -> ThresholdsConfig:
    return (
        ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(color=colour, value=value) for colour, value in colours])
    )


ROWS: Mapping[str, Sequence[timeseries.Panel | stat.Panel | heatmap.Panel]] = {
    "Traffic and objectives": [
        number(
            "Answered, last day",
            "percentunit",
            "1 - sum(sum_over_time(model:vlclip_errors:rate5m[1d]))"
            " / sum(sum_over_time(model:vlclip_requests:rate5m[1d]))",
            "Requests to all pipelines. The objective is 99.9 % over 30 days.",
            0.999,
        ),
        number(
            "In time, last day",
            "percentunit",
            "1 - max(model:vlclip_slow:ratio_avg1d)",
            "Time in which the slowest percentile kept its limit, of the worst pipeline. The objective is 99 % over 30 "
            "days.",
            0.99,
        ),
        number("Servers", "short", 'sum(up{job="vlclip"})'),
        lines("Requests", "reqps", {"{{model}}": rate("nv_inference_request_success", ASKED, "model")}),
        lines(
            "Images and texts",
            "rowsps",
            {"{{model}}": rate("nv_inference_count", ASKED, "model")},
            "Rows of the requests: a request has up to 64.",
        ),
        lines(
            "Failed requests",
            "reqps",
            {"{{reason}}": rate("nv_inference_request_failure", ASKED, "reason")},
            "CANCELED are those that their callers gave up. An image that cannot be decoded does not fail its request.",
        ),
        lines(
            "Budgets burned",
            "short",
            {
                "errors, {{model}}": "model:vlclip_errors:ratio_rate1h / 0.001",
                "latency, {{model}}": "model:vlclip_slow:ratio_avg1h / 0.01",
            },
            "How many times faster than the objectives allow, in the last hour. It pages from 14.4 on.",
        )
        .thresholds(steps(("transparent", None), ("red", 14.4)))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.LINE)),
        lines(
            "Requests waiting",
            "short",
            {"{{model}}": f"sum by (model) (nv_inference_pending_request_count{{{STEPS}}})"},
            "In front of each step.",
            stacked=True,
        ),
        lines(
            "Rows in an execution",
            "short",
            {
                "{{model}}": f"{rate('nv_inference_count', STEPS, 'model')} / "
                f"{rate('nv_inference_exec_count', STEPS, 'model')}"
            },
            "What dynamic batching makes of the requests.",
        ),
    ],
    "Latency": [
        lines(
            "Pipelines, median",
            "s",
            {"{{model}}": slowest_server("0.5")},
            "Of the last minute's requests, in the server, of the slowest server. Nothing where nothing is asked.",
        ).span(12),
        lines(
            "Pipelines, slowest percentile",
            "s",
            {"{{model}}": slowest_server("0.99")},
            "As the objectives see it: 0.5 s where there is an image, 0.1 s where there is text alone.",
        ).span(12),
        lines(
            "Computing in each step",
            "s",
            {"{{model}}": mean("compute_input compute_infer compute_output", STEPS)},
            "Mean of a request, which waits for the whole batch that it is in.",
            stacked=True,
        ).span(12),
        lines(
            "Waiting before each step", "s", {"{{model}}": mean("queue", STEPS)}, "Mean of a request.", stacked=True
        ).span(12),
    ],
    "What is seen": [
        lines(
            "Images to be grounded",
            "rowsps",
            {"{{status}}": rate("vlclip_grounding_images_total", OURS, "status")},
            "whole_image: no product was found, or the product type was empty.",
            stacked=True,
        ),
        lines(
            "No product found",
            "percentunit",
            {"last hour": "vlclip:fallback:ratio_rate1h", "a day before": "vlclip:fallback:ratio_rate1h offset 1d"},
            "Of the images that could be decoded.",
        ).max(1),
        densities(
            "Scores", "short", "vlclip_grounding_score", "Of the best box of each image; 0: the product type was empty."
        ),
        lines(
            "Files that were not decoded",
            "percentunit",
            {
                "{{result}}": rate("vlclip_decoded_images_total", f'{OURS},result!="decoded"', "result")
                + f" / on () group_left () sum(rate(vlclip_decoded_images_total{{{OURS}}}[$__rate_interval]))"
            },
            "Of the files that all pipelines were sent. More than 5 % in a quarter of an hour is a ticket.",
            stacked=True,
        ),
        lines(
            "Size of an image",
            "suffix: MP",
            {
                "p50": f"{percentile(0.5, 'vlclip_decoded_pixels')} / 1e6",
                "p95": f"{percentile(0.95, 'vlclip_decoded_pixels')} / 1e6",
                "mean": "sum(rate(vlclip_decoded_pixels_sum{OURS}[$__rate_interval])) / "
                "sum(rate(vlclip_decoded_pixels_count{OURS}[$__rate_interval])) / 1e6".replace("OURS", OURS),
            },
            "Megapixels as sent. Decoding costs in proportion.",
        ),
        lines(
            "Tokens of a text",
            "short",
            {
                "{{input}} p50": percentile(0.5, "vlclip_text_tokens", "input"),
                "{{input}} p95": percentile(0.95, "vlclip_text_tokens", "input"),
            },
            "With those that mark its ends. What is longer than the encoder reads is cut.",
        ),
    ],
    "Agent": [
        lines("Products", "rowsps", {"{{status}}": rate("vlclip_agent_items", OURS, "status")}, stacked=True),
        lines("Calls to the language model", "reqps", {"{{result}}": rate("vlclip_agent_calls", OURS, "result")}),
        lines(
            "Duration of a call",
            "s",
            {
                "p50": percentile(0.5, "vlclip_agent_call_seconds"),
                "p95": percentile(0.95, "vlclip_agent_call_seconds"),
            },
        ),
        lines("Tokens", "short", {"{{kind}} a second": rate("vlclip_agent_tokens", OURS, "kind")}),
        lines("Cache", "ops", {"{{result}}": rate("vlclip_agent_cache", OURS, "result")}, stacked=True),
        lines(
            "In flight, and out of order",
            "short",
            {
                "calls in flight": calling("vlclip_agent_calls_in_flight"),
                "servers whose circuit is open": calling("vlclip_agent_circuit_open"),
            },
            "Of those that called the language model, or tried it, in the last five minutes.",
        ),
    ],
    "Server": [
        lines("CPU", "percentunit", {"{{instance}}": f"nv_cpu_utilization{{{OURS}}}"}, "Of the whole host.").max(1),
        lines(
            "Memory",
            "bytes",
            {
                "{{instance}} used": f"nv_cpu_memory_used_bytes{{{OURS}}}",
                "{{instance}} total": f"nv_cpu_memory_total_bytes{{{OURS}}}",
            },
            "Of the whole host.",
        ),
        lines("GPU", "percentunit", {"{{instance}} {{gpu_uuid}}": f"nv_gpu_utilization{{{OURS}}}"}).max(1),
        lines(
            "GPU memory",
            "bytes",
            {
                "{{instance}} {{gpu_uuid}} used": f"nv_gpu_memory_used_bytes{{{OURS}}}",
                "{{instance}} {{gpu_uuid}} total": f"nv_gpu_memory_total_bytes{{{OURS}}}",
            },
        ),
        lines("GPU power", "watt", {"{{instance}} {{gpu_uuid}}": f"nv_gpu_power_usage{{{OURS}}}"}),
    ],
}


def build() -> str:
    """The JSON that Grafana loads."""
    board = (
        Dashboard("VL-CLIP on Triton")
        .uid("vlclip")
        .tags(["vlclip", "triton"])
        .refresh("15s")
        .time("now-1h", "now")
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            QueryVariable("instance")
            .label("Server")
            .datasource(SOURCE)
            .query('label_values(up{job="vlclip"}, instance)')
            .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
            .include_all(True)
            .all_value(".*")
            .multi(True)
        )
    )
    ids = count(1)
    for title, panels in ROWS.items():
        board = board.with_row(Row(title).id(next(ids)))
        for panel in panels:
            board = board.with_panel(panel.id(next(ids)))
    return JSONEncoder(sort_keys=True, indent=1).encode(board.build()) + "\n"
