"""The wheel has one top-level package, with everything that runs and nothing of the development."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = {
    "leasegate-engine": "Usage: leasegate-engine",
    "leasegate-roles": "Usage: leasegate-roles",
    "leasegate-access": "Usage: leasegate-access",
    "leasegate-watcher": "Usage: leasegate-watcher",
    "leasegate-vault-policies": "Usage: leasegate-vault-policies",
    "kubectl-vault": "Usage: kubectl vault",
    "leasegate": "Usage: leasegate",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target=wheel", f"--directory={folder}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts' folder of an environment with the wheel alone."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", f"--python={python}"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--quiet", wheel], check=True, capture_output=True)
    return folder / "bin"


def run(installed: Path, script: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script outside the repository; of this environment it sees the libraries, and not the editable install."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    env |= {"PYTHONPATH": sysconfig.get_path("purelib")}
    return subprocess.run(
        [installed / script, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_wheel_has_one_top_level_package(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"leasegate_server"}
    packages = {PurePosixPath(name).parts[1] for name in names if name.startswith("leasegate_server/")}
    assert packages == {"__init__.py", "entry_points.py", "services", "watcher", "cli", "deploy", "leasegate"}


def test_the_wheel_has_migrations_and_policies(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    migrations = ROOT / "services/access/ledger/db/migrations"
    files = [*migrations.rglob("*.py"), *migrations.rglob("*.mako"), *(ROOT / "deploy/vault/policies").glob("*.hcl")]
    assert len(files) > 6
    assert {f"leasegate_server/{file.relative_to(ROOT)}" for file in files} <= names


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_runs_from_the_wheel(installed: Path, tmp_path: Path, script: str) -> None:
    done = run(installed, script, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(SCRIPTS[script])


def test_the_ledger_is_checked_by_a_program_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "leasegate", "ledger", "check", str(tmp_path / "none.db"), cwd=tmp_path)
    assert done.returncode == 2
    assert "No module named" not in done.stderr
    assert "none.db" in done.stderr
