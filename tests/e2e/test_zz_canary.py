"""No secret that Vault gave out is in a log, an Event or a status. The file's name puts this test last."""

from __future__ import annotations

from dev.demo.story import Story
from dev.stack.stack import LocalStack
from tests.canary import by_head, places
from tests.e2e.witness import Witness


def test_no_issued_secret_can_be_read(stack: LocalStack, witness: Witness) -> None:
    """Passwords and tokens of the whole run, by Vault's own record, are in no log, no Event and no status."""
    story = Story(stack)
    for step in story.steps():  # so that the canary also sings when it runs alone
        step.run()
    secrets = witness.secrets()
    assert set(story.seen.passwords) <= secrets, "the record is incomplete"
    assert len(secrets) > 10
    texts = list(witness.readable())
    assert all(text for _, text in texts), "something was not collected"
    heads = by_head(secrets)
    leaks = [(name, text[max(0, at - 80) : at]) for name, text in texts for at in places(heads, text)]
    assert leaks == []
