"""``protos/breaking.sh`` compares the contracts with a committed baseline and refuses what breaks clients."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROTOS = Path(__file__).parents[2] / "protos"
BUF = Path(sys.executable).parent / "buf"


def breaking(protos: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(protos / "breaking.sh"), str(BUF)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PROTOS, tmp_path / "protos", ignore=shutil.ignore_patterns("gen")))


def test_the_contracts_break_nothing() -> None:
    found = breaking(PROTOS)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("access/v1/lease.proto", "string username = 12;", "string database_user = 12;", "username"),
        ("access/v1/lease.proto", "int64 attempt = 6;", "string attempt = 6;", "attempt"),
        ("errors/v1/error_reason.proto", "ERROR_REASON_OVERLOADED =", "ERROR_REASON_BUSY =", "OVERLOADED"),
        (
            "access/v1/operator_service.proto",
            "rpc ListLeases(ListLeasesRequest) returns (ListLeasesResponse);",
            "",
            "ListLeases",
        ),
    ],
)
def test_a_breaking_change_is_refused(copied: Path, file: str, old: str, new: str, says: str) -> None:
    changed = copied / "leasegate" / file
    text = changed.read_text()
    assert text.count(old) == 1
    changed.write_text(text.replace(old, new))
    found = breaking(copied)
    assert found.returncode != 0
    assert says in found.stdout + found.stderr


def test_an_added_field_is_no_breaking_change(copied: Path) -> None:
    changed = copied / "leasegate" / "access/v1/lease.proto"
    text = changed.read_text()
    field = "  // Name of the database user.\n  string username = 12;\n"
    assert field in text
    changed.write_text(text.replace(field, field + "  // Added.\n  string added = 99;\n"))
    assert breaking(copied).returncode == 0
