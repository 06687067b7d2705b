"""Servers that tests share. Each one starts when the first test asks for it; no test is skipped for lack of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from dev.stack.stack import LocalStack
from tests.canary import CANARY
from tests.durations import FolderDurations
from tests.servers import Servers, real_servers


def pytest_configure(config: pytest.Config) -> None:
    """Listen to everything that is printed, add up durations, and end the servers on SIGTERM, too."""
    config.pluginmanager.register(CANARY, "canary")
    config.pluginmanager.register(FolderDurations(), "folder-durations")
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """A real bao and a real PostgreSQL, with the product's policies written."""
    with real_servers() as running:
        yield running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A real Kubernetes control plane with the product's CRDs, rights and policies, and none of its processes."""
    with LocalStack.start(tmp_path_factory.mktemp("cluster"), services=False) as running:
        yield running
