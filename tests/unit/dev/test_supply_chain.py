"""What is installed or built is pinned by hash, and no package runs code of its own to be built (L)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.sources import ROOT, text_of

LOCKS = (ROOT / "requirements.lock", ROOT / "dev/stack/go_toolchain.lock")
BY_HASH = {"--no-deps", "--only-binary=:all:", "--require-hashes"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_package_is_one_version_with_its_hashes(lock: Path) -> None:
    packages = re.split(r"^(?=[A-Za-z])", text_of(lock), flags=re.MULTILINE)[1:]
    assert packages
    assert [each for each in packages if not re.match(r"[\w.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}\s", each, re.S)] == []


def test_every_installation_is_by_hash_and_builds_no_source() -> None:
    """An sdist runs code of its packager, in an environment that nothing pins."""
    installs = [line for line in text_of(ROOT / "Makefile").splitlines() if "pip install" in line]
    assert [line for line in installs if "--editable ." not in line and not set(line.split()) >= BY_HASH] == []
    assert "--no-build-isolation" in next(line for line in installs if "--editable ." in line)
