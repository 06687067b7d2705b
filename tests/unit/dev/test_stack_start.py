"""What the local stack uses, builds and claims before it starts anything."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import yaml

from dev.stack import kube_programs
from dev.stack.errors import StackError
from dev.stack.external_servers import ExternalServers
from dev.stack.go_build import Progress
from dev.stack.install import DEPLOY, LAST_POLICY, enabled_namespace, manifests
from dev.stack.kube.gomod import go_mod
from dev.stack.kube_programs import KubePrograms, find_programs
from dev.stack.stack import LocalStack

UPSTREAM = """\
module k8s.io/kubernetes

require (
\tgithub.com/x/y v1.2.3
\tgo.etcd.io/etcd/server/v3 v3.6.0 // indirect
\tk8s.io/api v0.0.0
\tgithub.com/z v0.1.0 // indirect
)

replace (
\tk8s.io/api => ./staging/src/k8s.io/api
)
"""


def _no_build() -> Path:
    raise AssertionError("nothing is to be built")


def _assets(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch(mode=0o755)
    return folder


@pytest.fixture(autouse=True)
def empty_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)


def test_programs_of_kubebuilder_assets_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = (kube_programs.ETCD, kube_programs.APISERVER, kube_programs.CONTROLLER_MANAGER)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(_assets(tmp_path, *names)))
    assert find_programs(_no_build) == KubePrograms(*([str(tmp_path / name)] for name in names))


def test_a_controller_manager_that_is_missing_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(_assets(tmp_path, "etcd", "kube-apiserver")))
    found = find_programs(lambda: Path("/cache/kube"))
    assert (found.etcd, found.controller_manager) == (
        [str(tmp_path / "etcd")],
        ["/cache/kube", "kube-controller-manager"],
    )


def test_all_is_built_where_there_is_no_etcd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(_assets(tmp_path, "kube-apiserver", "kube-controller-manager")))
    assert find_programs(lambda: Path("/cache/kube")) == KubePrograms.of_binary(Path("/cache/kube"))


def test_the_go_module_takes_published_twins() -> None:
    text = go_mod(UPSTREAM, version="v1.37.2")
    assert "k8s.io/api => k8s.io/api v0.37.2" in text
    assert "github.com/x/y v1.2.3" in text
    assert "v3.6.0" not in text
    assert "v0.0.0" not in text


@pytest.mark.parametrize(
    ("total", "done", "told"),
    [
        (None, 3, "Compiling: 3 packages"),
        (100, 25, "Compiling: 25 of 100 packages, about 3 min left"),
        (100, 99, "Compiling: 99 of 100 packages, about 1 s left"),
        (100, 100, "Compiling: 100 of 100 packages, linking"),
    ],
)
def test_progress_says_how_much_is_done_and_left(total: int | None, done: int, told: str) -> None:
    progress = Progress("Compiling", "packages", total=total, say=lambda _: None)
    for _ in range(done):
        progress.count_step()
    assert progress.text(60) == told


def test_progress_in_a_log_is_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    said: list[str] = []
    progress = Progress("Compiling", "packages", total=1000, say=said.append)
    for _ in range(1000):
        progress.count_step()
    progress.close()
    assert said == []


def test_servers_of_the_environment_are_used(tmp_path: Path) -> None:
    env = {
        "KUBECONFIG": "/k",
        "VAULT_ADDR": "https://v",
        "VAULT_TOKEN": "s.secret",
        "VAULT_CACERT": "/ca",
        "LEASEGATE_POSTGRES_URL": "postgresql://u:secret@h/d",
    }
    found = ExternalServers.from_environment(tmp_path, env)
    assert (found.kubeconfig, found.vault_addr, found.postgres_url) == ("/k", "https://v", "postgresql://u:secret@h/d")
    assert len(found.lines()) == 3
    assert "secret" not in repr(found) + " ".join(found.lines())


def test_this_stacks_own_names_in_the_environment_are_no_other_servers(tmp_path: Path) -> None:
    env = {
        "LEASEGATE_STACK_DIR": str(tmp_path),
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "VAULT_ADDR": "https://v",
        "VAULT_TOKEN": "s.x",
        "VAULT_CACERT": "/ca",
    }
    assert ExternalServers.from_environment(tmp_path, env) == ExternalServers()


def test_half_a_vault_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="VAULT_TOKEN and VAULT_CACERT"):
        ExternalServers.from_environment(tmp_path, {"VAULT_ADDR": "https://v"})


def test_a_folder_with_other_files_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(StackError, match="choose another folder"):
        LocalStack.start(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_there_is_nothing_to_attach_to_in_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no local stack in"):
        LocalStack.attach(tmp_path)


def test_what_is_applied_once_has_neither_a_namespace_nor_the_option() -> None:
    assert {"enabled-namespace.yaml", "namespace-quota.yaml", "fast-rbac.yaml"} & {
        path.name for path in manifests()
    } == set()


def test_the_quota_of_a_namespace_counts_the_four_kinds() -> None:
    (quota,) = yaml.safe_load_all((DEPLOY / "rbac" / "namespace-quota.yaml").read_text())
    kinds = [yaml.safe_load(file.read_text())["spec"] for file in (DEPLOY / "crds").glob("*.yaml")]
    counted = {f"count/{kind['names']['plural']}.{kind['group']}" for kind in kinds}
    assert set(quota["spec"]["hard"]) == counted
    assert "namespace" not in quota["metadata"]


def test_policies_are_applied_before_the_rbac_that_they_restrict() -> None:
    folders = [next(part for part in path.parts[::-1] if part in ("crds", "policies", "rbac")) for path in manifests()]
    assert folders == sorted(folders, key=["crds", "policies", "rbac"].index)
    last = [path for path in manifests() if "policies" in path.parts][-1]
    assert f"policyName: {LAST_POLICY}" in last.read_text()


def test_the_manifest_of_a_namespace_is_the_products_and_the_guides() -> None:
    text = enabled_namespace(ca_bundle=b"PEM", namespace="demo")
    for expected in (
        "name: leasegate-enabled-namespace",
        "name: demo-sa",
        "caBundle: UEVN",
        "k8s.-.demo.vault-auth",
        "port: 8200",
        "port: 5432",
    ):
        assert expected in text
    assert os.path.sep not in text.split("caBundle: ")[1].split("\n")[0]
