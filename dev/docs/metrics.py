"""Metrics of the four processes, as each declares them."""

from __future__ import annotations

from dev.docs.markdown import page, table
from services.access.worker.metrics import access_metrics
from services.common.metrics import MetricSpec
from services.common.vault.call_metrics import server_metrics
from watcher.metrics import watcher_metrics

PROCESSES = {
    "engine": server_metrics(),
    "roles": server_metrics(),
    "access": access_metrics(),
    "watcher": watcher_metrics(),
}
"""The metrics of each process."""

INTRO = """Each process serves its metrics in the Prometheus format at `--metrics-listen`. Beside these every process
has the usual `process_*` and `python_info`. The samples of a histogram end in `_bucket`, `_sum` and `_count`."""


def render() -> str:
    """One table, by name."""
    found: dict[MetricSpec, list[str]] = {}
    for process, specs in PROCESSES.items():
        for spec in specs:
            found.setdefault(spec, []).append(process)
    rows = (
        (f"`{spec.name}`", spec.kind, ", ".join(f"`{label}`" for label in spec.labels), ", ".join(processes), spec.help)
        for spec, processes in sorted(found.items(), key=lambda each: each[0].name)
    )
    columns = ("metric", "type", "labels", "process", "meaning")
    return page(
        "Metrics", source="the lists of metrics in `services` and `watcher`", parts=[INTRO, table(columns, rows)]
    )
