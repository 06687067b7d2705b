"""The command ``python -m benchmarks``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from benchmarks import burst, ending, grpc_callers, issue, scale, writers
from benchmarks.bars import BARS, table
from benchmarks.figures import FULL, QUICK, Figures, Sizes
from benchmarks.place import Place, place
from benchmarks.progress import say

RESULTS = Path(__file__).parent / "results"
_MEASURES: dict[str, tuple[Callable[[Place, Sizes], Iterator[Figures]], tuple[str, ...]]] = {
    "issue": (issue.measure, ("approve_to_secret_vs_raw_creds_p50", "approve_to_secret_vs_raw_creds_p99")),
    "ending": (ending.measure, ("delete_to_user_dropped_vs_raw_revoke_p50", "delete_to_object_gone_ms_p50")),
    "burst": (burst.measure, ("burst_200_vs_raw", "burst_1000_vs_raw", "leases_per_request")),
    "holding": (grpc_callers.measure, ("claim_vs_raw_rate", "renew_vs_raw_rate")),
    "writers": (writers.measure, ()),
    "scale": (
        scale.measure,
        (
            "approve_to_secret_p99_busy_vs_idle",
            "cost_10000_vs_100_leases",
            "restart_10000_s",
            "restart_reissues",
            "access_rss_mb",
            "watcher_rss_mb",
        ),
    ),
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--only", multiple=True, metavar="KEY", help=f"Measure only these keys, or {', '.join(_MEASURES)}. Repeatable."
)
@click.option("--quick", is_flag=True, help="Fewer of everything, in two minutes; writes results/quick.json.")
@click.option("--fast-rbac", is_flag=True, help="With deploy/rbac/fast-rbac.yaml, which an operator may add.")
def main(only: Sequence[str], quick: bool, fast_rbac: bool) -> None:
    """Measure Leasegate beside raw Vault, and write benchmarks/results/latest.json.

    It starts a local stack of its own, which takes a few seconds, and stops it at the end. The whole takes about half
    an hour on two cores, most of which makes and keeps 10,000 leases. Each figure is written as soon as it is had; a
    key that was not measured stays as it was in latest.json, but at the end of a whole run, where it is one that is
    measured no longer.
    """
    chosen = _chosen(only)
    sizes = QUICK if quick else FULL
    found: Figures = {}
    try:
        with place(ttl_s=sizes.ttl_s, fast_rbac=fast_rbac) as where:
            for name in chosen:
                say(f"measuring {name} ...")
                for some in _MEASURES[name][0](where, sizes):
                    found |= some
                    _write(found, quick=quick)
        if not only:
            _write(found, quick=quick, whole=True)
    finally:  # what was measured before a failure or Ctrl-C is shown too
        click.echo("\n".join(table(found, quick=quick)))


def _chosen(only: Sequence[str]) -> list[str]:
    unknown = [word for word in only if word not in _MEASURES and word not in BARS]
    if unknown:
        raise click.BadParameter(
            f"{', '.join(unknown)}; there are {', '.join([*_MEASURES, *BARS])}", param_hint="--only"
        )
    return [name for name, (_, keys) in _MEASURES.items() if not only or name in only or set(keys) & set(only)]


def _write(found: Figures, *, quick: bool, whole: bool = False) -> None:
    """Replace these figures in the file, or all of it; the file is whole at any moment."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / ("quick.json" if quick else "latest.json")
    known = json.loads(file.read_text()) if file.exists() and not whole else {}
    new = file.with_suffix(".new")
    new.write_text(json.dumps(known | {key: round(value, 4) for key, value in found.items()}, indent=1) + "\n")
    new.replace(file)


if __name__ == "__main__":
    main()
