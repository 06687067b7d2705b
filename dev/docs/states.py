"""The state diagram of attempts, from the table that the ledger's commits follow."""

from __future__ import annotations

from dev.docs.markdown import code
from services.access.domain.attempt_states import ALLOWED
from services.access.domain.models import AttemptState

BEGIN, END = "<!-- generated: attempt states -->", "<!-- end generated -->"


def render() -> str:
    """A Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {AttemptState.PENDING.name}"]
    for former in AttemptState:
        lines += [f"    {former.name} --> {to.name}" for to in AttemptState if to in ALLOWED[former]]
        if not ALLOWED[former]:
            lines.append(f"    {former.name} --> [*]")
    return code("\n".join(lines), "mermaid")


def replace(text: str) -> str:
    """A document with the diagram between its markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no {BEGIN} and {END}")
    return f"{before}{begin}\n{render()}\n{end}{after}"
