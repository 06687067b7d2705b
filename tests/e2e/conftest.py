"""The whole stack. What Vault issued and what anybody could read are collected for the canary test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.stack.stack import LocalStack
from tests.e2e.witness import Witness


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--greedy=1000`` runs the test of a greedy namespace in its full size."""
    parser.addoption("--greedy", type=int, default=100, help="Access requests of the greedy namespace.")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The whole local stack; one for all end-to-end tests."""
    with LocalStack.start(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="session")
def witness(stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witness]:
    """Collects Events, statuses and Vault's own record of every secret that it gave out."""
    with Witness(stack, tmp_path_factory.mktemp("witness")) as watching:
        yield watching


@pytest.fixture(autouse=True)
def _watched(witness: Witness) -> None:
    """Every end-to-end test runs under the witness's eyes."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what a test writes."""
    return tmp_path_factory.mktemp("files")
