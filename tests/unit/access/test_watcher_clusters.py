"""Of which cluster a caller is the watcher: the option, and what happens without it."""

from __future__ import annotations

from typing import Any

import pytest

from leasegate.access.v1 import watcher_service_pb2 as pb
from services.access.__main__ import watcher_clusters
from services.access.api.clusters import WatcherClusters
from services.access.api.watcher import WatcherServicer
from services.common.config import HostPort, ServerConfig, StartupRefusedError
from services.common.errors import CallerNotAllowedError
from services.common.rpc import caller

A, B = "spiffe://leasegate/a", "spiffe://leasegate/b"


def config(*watchers: str) -> ServerConfig:
    anywhere = HostPort("127.0.0.1", 0)
    allow = {"leasegate.access.v1.WatcherService": frozenset(watchers)}
    return ServerConfig(process="access", listen=anywhere, health_listen=anywhere, allow=allow)


def test_each_watcher_has_its_cluster() -> None:
    assert watcher_clusters([(A, "u1"), (B, "u2"), (A, "u1")], config(A, B)) == {A: "u1", B: "u2"}
    assert watcher_clusters([], config()) == {}


@pytest.mark.parametrize("pairs", [[], [(B, "u2")]])
def test_h3_a_watcher_without_a_cluster_keeps_the_service_from_starting(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(StartupRefusedError, match=f"--watcher-cluster {A}=UID .kubectl get namespace kube-system"):
        watcher_clusters(pairs, config(A))


def test_h3_a_watcher_of_two_clusters_is_refused() -> None:
    with pytest.raises(StartupRefusedError, match="twice"):
        watcher_clusters([(A, "u1"), (A, "u2")], config(A))


def test_h3_a_caller_of_no_cluster_is_told_what_to_do() -> None:
    with (
        caller.acting(B),
        pytest.raises(CallerNotAllowedError, match=f"start the access service with --watcher-cluster {B}=UID"),
    ):
        WatcherClusters({A: "u1"}).admit(pb.WatchChangesRequest())


def test_h3_every_call_asks_of_which_cluster_the_caller_is() -> None:
    """Also one that is added later: it has to call ``admit`` before anything else."""
    nothing: Any = None
    servicer = WatcherServicer(
        nothing, nothing, nothing, clusters=WatcherClusters({A: "u1"}), ensurer=nothing, feed=nothing, vaults=nothing,
        guard=nothing,
    )  # fmt: skip
    for method in pb.DESCRIPTOR.services_by_name["WatcherService"].methods:
        request = getattr(pb, method.input_type.name)()
        with caller.acting(B), pytest.raises(CallerNotAllowedError, match="--watcher-cluster"):
            getattr(servicer, method.name)(request, nothing)
