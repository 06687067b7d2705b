"""The comparison of what is printed with what the guide printed: what passes, and what must not."""

from __future__ import annotations

import pytest

from dev.demo.console import Command, differences, guide_commands


def test_the_guide_has_all_its_commands() -> None:
    """Twenty-two commands stand in the guide's console blocks, comments aside."""
    commands = guide_commands()
    assert len(commands) == 22
    assert all(command.line.startswith(("kubectl ", "vault ")) for command in commands)


@pytest.mark.parametrize("command", guide_commands(), ids=lambda command: command.line)
def test_the_guide_agrees_with_itself(command: Command) -> None:
    """What the guide prints passes as it stands."""
    assert differences(command, command.expected) == []


@pytest.mark.parametrize("command", [c for c in guide_commands() if c.expected], ids=lambda command: command.line)
def test_nothing_printed_does_not_pass(command: Command) -> None:
    """A command that prints nothing falls short of every block that prints something."""
    assert differences(command, "null" if "-o yaml" in command.line else "")


GET = Command("kubectl get secretengines -n demo", "NAME                STATUS\npostgresql-engine   Success")
YAML = Command(
    "kubectl get x -o yaml",
    "status:\n  lease:\n    renewable: true\n    id: a/creds/b\n  conditions:\n  - type: Approved",
)


@pytest.mark.parametrize(
    ("command", "actual", "passes"),
    [
        (
            GET,
            "NAME                STATUS    AGE\nother               Failed    1s\npostgresql-engine   Success   3s",
            True,
        ),
        (GET, "NAME                STATUS    AGE\npostgresql-engine   Failed    3s", False),
        (GET, "NAME                AGE\npostgresql-engine   3s", False),
        (GET, "STATUS    NAME\nSuccess   postgresql-engine", False),
        (
            YAML,
            "status:\n  lease:\n    renewable: true\n    id: a/creds/b\n"
            "  conditions:\n  - type: Other\n  - type: Approved",
            True,
        ),
        (YAML, "status:\n  lease:\n    id: a/creds/b\n    renewable: true\n  conditions:\n  - type: Approved", False),
        (YAML, "status:\n  lease:\n    renewable: false\n    id: a/creds/b\n  conditions:\n  - type: Approved", False),
        (YAML, "status:\n  lease:\n    renewable: true\n    id: a/creds/b\n  conditions: []", False),
        (Command("kubectl delete x", 'x "y" deleted'), 'x "y" deleted from demo namespace', True),
        (Command("kubectl vault deny x", "  Denied"), "approved", False),
    ],
)
def test_more_may_be_there_but_nothing_less(command: Command, actual: str, *, passes: bool) -> None:
    """Extra rows, columns and keys pass; a missing, different or moved one does not."""
    assert (differences(command, actual) == []) is passes
