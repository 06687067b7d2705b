"""The circuit breaker: a Vault that does not answer is only probed until it does; each Vault has its own circuit."""

from __future__ import annotations

from typing import Any, cast

import pytest

from services.access.vault.circuit_breaker import FAILURES, FIRST_PAUSE_S, LONGEST_PAUSE_S, CircuitBreakers, Key
from services.common import errors
from services.common.vault.client import Vault
from services.common.vault.response import Answer, VaultNotFoundError
from services.common.vault.transport import VaultUnreachedError

HERE, THERE = Key("https://one:8200", ""), Key("https://two:8200", "")
DOWN = errors.VaultUnavailableError("Vault does not answer", address="https://one:8200")


class World:
    """A Vault that fails when the test says so, and a clock."""

    def __init__(self) -> None:
        self.now, self.calls, self.probes, self.up = 0.0, 0, 0, False
        self.error: Exception | None = DOWN
        self.breakers = CircuitBreakers(clock=lambda: self.now)

    address = "https://one:8200"

    def read(self, _path: str, **_: Any) -> Answer:
        self.calls += 1
        if self.error:
            raise self.error
        return Answer()

    write = list = delete = read

    def guarded(self, key: Key = HERE) -> Vault:
        return self.breakers.guard(cast(Vault, self), key, probe=self.probe)

    def probe(self) -> bool:
        self.probes += 1
        return self.up

    def fail(self, times: int, error: Exception = DOWN) -> None:
        self.error = error
        for _ in range(times):
            with pytest.raises(type(error)):
                self.guarded().read("x")


@pytest.fixture
def world() -> World:
    return World()


def test_after_some_failures_in_a_row_calls_fail_at_once_as_not_sent(world: World) -> None:
    world.fail(FAILURES)
    with pytest.raises(VaultUnreachedError, match="does not answer; it is not asked again") as refused:
        world.guarded().read("x")
    assert world.calls == FAILURES
    assert refused.value.reason == "VAULT_UNAVAILABLE"
    assert refused.value.retry_after_s == pytest.approx(FIRST_PAUSE_S)
    assert world.breakers.pausing() == {HERE}


@pytest.mark.parametrize("verb", ["read", "write", "list", "delete"])
def test_every_kind_of_call_is_guarded(world: World, verb: str) -> None:
    world.fail(FAILURES)
    with pytest.raises(VaultUnreachedError):
        getattr(world.guarded(), verb)("x")
    assert world.calls == FAILURES


def test_another_vault_is_asked_as_ever(world: World) -> None:
    world.fail(FAILURES)
    world.error = None
    world.guarded(THERE).read("x")
    assert world.breakers.open_for() == {HERE: True, THERE: False}


def test_failures_with_an_answer_between_do_not_count_up(world: World) -> None:
    world.fail(FAILURES - 1)
    world.error = None
    world.guarded().read("x")
    world.fail(FAILURES - 1)
    assert not world.breakers.pausing()


@pytest.mark.parametrize(
    "error",
    [
        errors.VaultRefusedError("400", path="x"),
        errors.VaultPolicyMissingError("403", path="x"),
        errors.VaultFailedError("the database cannot be reached", path="x"),
        errors.VaultThrottledError("429", address="x"),
        VaultNotFoundError("x", no_mount=False),
    ],
)
def test_an_answer_that_is_a_refusal_shows_that_vault_is_there(world: World, error: Exception) -> None:
    world.fail(FAILURES - 1)
    world.fail(1, error)
    world.fail(FAILURES - 1)
    assert not world.breakers.pausing()


@pytest.mark.parametrize(
    "error",
    [errors.DeadlineTooShortError("x"), errors.VaultAuthMissingError("x"), errors.PathNotOwnedError("x", path="x")],
)
def test_what_was_not_sent_says_nothing(world: World, error: Exception) -> None:
    world.fail(FAILURES - 1)
    world.fail(1, error)
    world.fail(1)
    assert world.breakers.pausing() == {HERE}


def test_a_sealed_vault_counts(world: World) -> None:
    world.fail(FAILURES, errors.VaultSealedError("Vault is sealed", address="x"))
    with pytest.raises(VaultUnreachedError, match="sealed"):
        world.guarded().read("x")


def test_one_probe_after_each_pause_and_longer_pauses_until_it_answers(world: World) -> None:
    world.fail(FAILURES)
    pause = FIRST_PAUSE_S
    for number in range(1, 6):
        world.now += pause
        assert not world.breakers.pausing()  # somebody may try
        for _ in range(3):
            with pytest.raises(VaultUnreachedError):
                world.guarded().read("x")
        assert world.probes == number
        pause = min(pause * 2, LONGEST_PAUSE_S)
    assert world.calls == FAILURES
    world.now += pause
    world.up, world.error = True, None
    world.guarded().read("x")
    world.guarded().read("x")
    assert (world.calls, world.probes) == (FAILURES + 2, 6)
    assert world.breakers.open_for() == {HERE: False}


def test_it_opens_again_only_after_as_many_failures(world: World) -> None:
    world.fail(FAILURES)
    world.now, world.up = FIRST_PAUSE_S, True
    world.fail(FAILURES - 1)
    assert not world.breakers.pausing()
    world.fail(1)
    assert world.breakers.pausing() == {HERE}
