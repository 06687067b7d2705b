"""``python -m tests.model.protocol`` explores every scenario.

``--without each`` takes one rule away after the other, and expects a violation each time.
"""

from __future__ import annotations

import argparse
import time

from tests.model.protocol.explore import explore
from tests.model.protocol.model import Model
from tests.model.protocol.scenarios import RULES, SCENARIOS, Rule


def main() -> int:
    """Explore, print scenario, states and time; answer 1 if anything is other than expected."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.model.protocol", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--without", choices=[*RULES, "each"], help="take this rule away: its scenario has to fail")
    parser.add_argument("--scenario", choices=list(SCENARIOS), help="explore this one only")
    options = parser.parse_args()
    began, wrong, total = time.monotonic(), 0, 0
    removed: list[Rule | None] = [rule for rule in RULES if options.without in (rule, "each")] or [None]
    for rule in removed:
        for name in [options.scenario] if options.scenario else [RULES[rule].scenario] if rule else list(SCENARIOS):
            states, failed = _report(name, rule)
            wrong, total = wrong + failed, total + states
    print(f"total: {total:,} states, {time.monotonic() - began:.0f} s, {wrong} other than expected")
    return int(wrong > 0)


def _report(scenario: str, rule: Rule | None) -> tuple[int, bool]:
    began = time.monotonic()
    found = explore(Model(set(RULES) - {rule}, SCENARIOS[scenario]))
    what = f"{found.violation.label}: {found.text}" if found.violation else "all promises hold"
    numbers = f"{found.states:,} states, {found.transitions:,} transitions, {found.at_rest} at rest"
    bound = f", {found.only_to_bound:,} only to the bound" if found.only_to_bound else ""
    print(
        f"{scenario}{f' without {rule}' if rule else ''}: {what} ({numbers}{bound}; {time.monotonic() - began:.0f} s)",
        flush=True,
    )
    for number, label in enumerate(found.trace, 1):
        print(f"  {number:3} {label}")
    return found.states, bool(found.violation) != bool(rule)


if __name__ == "__main__":
    raise SystemExit(main())
