"""Statuses merged with what others wrote: decisions keep every byte, times change only with the condition."""

from __future__ import annotations

import datetime

from hypothesis import given
from hypothesis import strategies as st

from watcher.kube.conditions import Condition, changed_conditions, merged
from watcher.kube.resources import Body
from watcher.specs.status import DECISIONS

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
LATER = NOW + datetime.timedelta(minutes=1)
APPROVED: Body = {
    "type": "Approved",
    "reason": "KubectlApprove",
    "message": "by hand",
    "lastUpdateTime": "2019-11-20T11:40:26Z",
}
FOREIGN: Body = {"type": "Healthy", "status": "True", "odd": 1}
READY = Condition("Available", status=True, reason="Provisioned", message="ready")


def write(
    status: Body, *conditions: Condition, complete: bool = True, now: datetime.datetime = NOW, **fields: object
) -> Body:
    return merged(
        status, fields=fields, conditions=conditions, foreign=DECISIONS, complete=complete, now=now, generation=3
    )


def test_a_condition_has_the_guides_fields_and_the_standard_ones() -> None:
    assert write({}, READY)["conditions"] == [
        {
            "type": "Available",
            "status": "True",
            "reason": "Provisioned",
            "message": "ready",
            "lastUpdateTime": "2026-01-02T03:04:05Z",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
            "observedGeneration": 3,
        }
    ]


def test_the_same_condition_again_changes_nothing() -> None:
    first = write({}, READY, phase="Success")
    assert write(first, READY, now=LATER, phase="Success") == first


def test_another_message_moves_the_update_but_not_the_transition() -> None:
    second = write(
        write({}, READY), Condition("Available", status=True, reason="Provisioned", message="still ready"), now=LATER
    )
    condition = second["conditions"][0]
    assert (condition["lastUpdateTime"], condition["lastTransitionTime"]) == (
        "2026-01-02T03:05:05Z",
        "2026-01-02T03:04:05Z",
    )


def test_a_flipped_status_moves_update_and_transition() -> None:
    second = write(
        write({}, READY), Condition("Available", status=False, reason="VaultSealed", message="sealed"), now=LATER
    )
    condition = second["conditions"][0]
    assert (condition["lastUpdateTime"], condition["lastTransitionTime"]) == (
        "2026-01-02T03:05:05Z",
        "2026-01-02T03:05:05Z",
    )


def test_decisions_and_foreign_conditions_keep_their_place_and_every_byte() -> None:
    failed = Condition("Failed", status=True, reason="X", message="x")
    before = write({"conditions": [APPROVED, FOREIGN]}, failed)
    after = write(before, READY)
    assert [c["type"] for c in before["conditions"]] == ["Approved", "Healthy", "Failed"]
    assert after["conditions"][:2] == [APPROVED, FOREIGN]
    assert [c["type"] for c in after["conditions"]] == ["Approved", "Healthy", "Available"]


def test_a_decision_that_kubectl_vault_wrote_with_a_generation_stays() -> None:
    decision = APPROVED | {"observedGeneration": 1}
    assert write({"conditions": [decision]}, READY)["conditions"][0] == decision


def test_a_decision_is_never_written() -> None:
    assert "conditions" not in write({}, Condition("Approved", status=True, reason="X", message="x"))
    assert write({"conditions": [APPROVED]}, Condition("Denied", status=True, reason="X", message="x"))[
        "conditions"
    ] == [APPROVED]


def test_an_incomplete_set_keeps_the_other_conditions() -> None:
    before = write({}, READY)
    after = write(before, Condition("RevocationPending", status=True, reason="X", message="x"), complete=False)
    assert [c["type"] for c in after["conditions"]] == ["Available", "RevocationPending"]


def test_fields_are_set_and_removed_and_others_stay() -> None:
    assert write({"lease": 1, "other": 2}, phase="Denied", lease=None) == {"other": 2, "phase": "Denied"}


def test_a_changed_condition_is_one_that_the_status_does_not_have() -> None:
    status = write({}, READY)
    assert changed_conditions(status, [READY]) == []
    other = Condition("Available", status=True, reason="Provisioned", message="otherwise")
    assert changed_conditions(status, [other]) == [other]


def test_a_message_that_looks_like_a_secret_is_scrubbed() -> None:
    text = write(
        {},
        Condition(
            "Failed", status=True, reason="X", message="auth with hvs.CAESIJabcdefghij0123 failed; password=hunter2"
        ),
    )
    assert "hvs.CAES" not in str(text)
    assert "hunter2" not in str(text)


def test_a_long_message_is_cut() -> None:
    assert (
        len(write({}, Condition("Failed", status=True, reason="X", message="x" * 5000))["conditions"][0]["message"])
        <= 1000
    )


_CONDITION = st.fixed_dictionaries(
    {"type": st.sampled_from(["Approved", "Denied", "Healthy", "Available", "Failed"])},
    optional={
        "status": st.sampled_from(["True", "False"]),
        "message": st.text(max_size=5),
        "observedGeneration": st.integers(1, 9),
    },
)
_FACT = st.builds(
    Condition,
    st.sampled_from(["Available", "Failed", "RevocationPending", "Approved"]),
    status=st.booleans(),
    reason=st.sampled_from(["A", "B"]),
    message=st.sampled_from(["a", "b"]),
)


@given(
    st.lists(_CONDITION, max_size=5, unique_by=lambda c: c["type"]),
    st.lists(_FACT, max_size=3, unique_by=lambda f: f.type),
    st.booleans(),
)
def test_merging_is_idempotent_and_keeps_foreign_conditions(
    conditions: list[Body], facts: list[Condition], complete: bool
) -> None:
    once = write({"conditions": conditions}, *facts, complete=complete)
    assert write(once, *facts, complete=complete, now=LATER) == once
    foreign = [
        c
        for c in conditions
        if c["type"] in ("Approved", "Denied", "Healthy") and (c["type"] != "Healthy" or "observedGeneration" not in c)
    ]
    assert [c for c in once.get("conditions", []) if c in foreign] == foreign
