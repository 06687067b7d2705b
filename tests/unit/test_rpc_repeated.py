"""Calling an idempotent method again."""

from __future__ import annotations

import pytest

from services.common import errors
from services.common.errors import LeasegateError
from services.common.rpc.channel import repeated


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Method:
    """Fails with each of the errors, then answers."""

    def __init__(self, *failures: LeasegateError) -> None:
        self.failures, self.timeouts = list(failures), list[float | None]()

    def __call__(self, request: str, /, timeout: float | None = None) -> str:
        self.timeouts.append(timeout)
        if self.failures:
            raise self.failures.pop(0)
        return f"{request}!"


def call(method: Method, clock: Clock, timeout_s: float = 30) -> str:
    return repeated(method, "x", timeout_s=timeout_s, sleep=clock.sleep, clock=clock)


def test_it_is_called_again_while_unavailable_within_one_deadline() -> None:
    clock, method = Clock(), Method(errors.PeerUnavailable("down"), errors.VaultSealed("sealed", retry_after_s=4.0))
    assert call(method, clock) == "x!"
    assert 0.8 <= clock.slept[0] <= 1.2
    assert 2 * 4 * 0.8 <= clock.slept[1] <= 2 * 4 * 1.2
    assert method.timeouts[0] == 30
    assert method.timeouts[2] == pytest.approx(30 - sum(clock.slept))


def test_the_last_error_is_raised_when_no_time_is_left() -> None:
    clock, method = Clock(), Method(*(errors.VaultUnavailable(str(n)) for n in range(50)))
    with pytest.raises(errors.VaultUnavailable):
        call(method, clock, timeout_s=20)
    assert 2 <= len(method.timeouts) <= 6
    assert clock.now < 120


@pytest.mark.parametrize(
    "failure",
    [
        errors.Overloaded("busy"),
        errors.RoleNotReady("soon"),
        errors.SpecInvalid("no"),
        errors.DeadlineExpired("late"),
        errors.Internal("?"),
    ],
    ids=lambda failure: failure.reason,
)
def test_any_other_code_is_raised_at_once(failure: LeasegateError) -> None:
    clock, method = Clock(), Method(failure)
    with pytest.raises(type(failure)):
        call(method, clock)
    assert (len(method.timeouts), clock.slept) == (1, [])
