"""What a handler sees of its call: the deadline, the caller, the request id; and threads that see it, too."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from cryptography import x509

from services.common.errors import DeadlineTooShortError
from services.common.rpc import caller, deadline, request_ids
from services.common.rpc.pool import ContextPool
from tests.certificates import Authority


def test_outside_of_a_call_there_is_no_deadline() -> None:
    assert deadline.remaining_s() is None
    assert deadline.timeout_s(3.0) == 3.0


def test_the_nearer_deadline_counts() -> None:
    with deadline.within(5), deadline.within(60):
        assert 4 < (deadline.remaining_s() or 0) <= 5
        assert deadline.timeout_s(1.0) == 1.0
        assert 4 < deadline.timeout_s(30.0) <= 5
    assert deadline.remaining_s() is None


def test_a_deadline_that_has_passed_leaves_no_timeout() -> None:
    with deadline.within(-0.001), pytest.raises(DeadlineTooShortError):
        deadline.timeout_s(1.0)


def test_the_caller_is_known_only_inside_a_call() -> None:
    with pytest.raises(LookupError):
        caller.current()
    with caller.acting("spiffe://leasegate/watcher"):
        assert caller.current() == "spiffe://leasegate/watcher"
    with pytest.raises(LookupError):
        caller.current()


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 129, "line\nbreak", "ü"])
def test_a_request_id_that_is_no_good_is_replaced(given: str | None) -> None:
    with request_ids.following(given) as found:
        assert found != given
        assert request_ids.current() == found
        assert len(found) == 32
    assert request_ids.current() is None


def test_a_request_id_that_is_good_is_kept() -> None:
    with request_ids.following("demo/app-1:7.a_b@c") as found:
        assert found == "demo/app-1:7.a_b@c"


def test_a_pool_carries_the_context_and_leaks_nothing_into_the_next_work() -> None:
    with ContextPool(max_workers=1) as pool:
        with caller.acting("first"), deadline.within(9):
            seen = pool.submit(lambda: (caller.current(), deadline.remaining_s() is not None)).result()
        after = pool.submit(deadline.remaining_s).result()
        same_thread = pool.submit(threading.get_ident).result() == pool.submit(threading.get_ident).result()
    assert seen == ("first", True)
    assert after is None
    assert same_thread


def test_the_names_of_a_certificate_are_its_typed_alternative_names(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    uri, dns = x509.UniformResourceIdentifier, x509.DNSName
    pair = ca.issue(
        "spiffe://leasegate/common-name",
        dns("b.example"),
        uri("spiffe://a/1"),
        dns("spiffe://a/2"),
        uri("spiffe://a/3\0x"),
        uri(" "),
    )
    assert caller.names(pair.cert.read_bytes()) == ("spiffe://a/1", "b.example")


@pytest.mark.parametrize(
    "pem", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_has_no_names(pem: bytes) -> None:
    assert caller.names(pem) == ()
