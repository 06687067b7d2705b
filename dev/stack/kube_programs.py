"""Finds etcd, kube-apiserver and kube-controller-manager, or has them built."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ETCD, APISERVER, CONTROLLER_MANAGER = "etcd", "kube-apiserver", "kube-controller-manager"


@dataclass(frozen=True, slots=True)
class KubePrograms:
    """How each program is started: the first words of its command line."""

    etcd: list[str]
    apiserver: list[str]
    controller_manager: list[str]

    @classmethod
    def of_binary(cls, binary: Path) -> KubePrograms:
        """All three in the binary that the local stack builds."""
        return cls(*([str(binary), name] for name in (ETCD, APISERVER, CONTROLLER_MANAGER)))


def find_programs(build: Callable[[], Path], *, say: Callable[[str], None] = lambda _: None) -> KubePrograms:
    """Use what KUBEBUILDER_ASSETS or PATH has; build what is missing.

    KUBEBUILDER_ASSETS commonly has no controller manager, without which namespaces and owned Secrets are never deleted.

    Args:
        build: Builds the binary, or finds it in the cache.
        say: Receives what is used.
    """
    etcd, apiserver, manager = (_find(name) for name in (ETCD, APISERVER, CONTROLLER_MANAGER))
    if not (etcd and apiserver):
        return KubePrograms.of_binary(build())
    say(f"using {etcd} and {apiserver}")
    own = [manager] if manager else [str(build()), CONTROLLER_MANAGER]
    return KubePrograms([etcd], [apiserver], own)


def _find(name: str) -> str | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    return shutil.which(name, path=assets) if assets and shutil.which(name, path=assets) else shutil.which(name)
