"""M11: the names of an installation are in all policies and bindings at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from deploy.render import ACCOUNT, NAMESPACE, main, rendered

OTHER = {"namespace": "db-access", "account": "watch"}


def documents(files: dict[str, str]) -> list[dict[str, Any]]:
    return [document for text in files.values() for document in yaml.safe_load_all(text)]


def strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in strings(each)]
    return [value] if isinstance(value, str) else []


def test_the_usual_names_change_nothing() -> None:
    deploy = Path(__file__).parents[3] / "deploy"
    for name, text in rendered(namespace=NAMESPACE, account=ACCOUNT).items():
        assert text == (deploy / name).read_text()


def test_m11_no_manifest_keeps_the_usual_names() -> None:
    before, after = documents(rendered(namespace=NAMESPACE, account=ACCOUNT)), documents(rendered(**OTHER))
    assert len(before) == len(after)
    texts = strings(after)
    assert not [text for text in texts if NAMESPACE in text]
    user = "system:serviceaccount:db-access:watch"
    assert sum(user in text for text in texts) == sum(f"{NAMESPACE}:{ACCOUNT}" in text for text in strings(before)) > 5
    assert not [text for text in texts if f"'{ACCOUNT}'" in text]
    accounts = [each for document in after for each in (document, *(document.get("subjects") or []))]
    names = {each.get("name") or each["metadata"]["name"] for each in accounts if each["kind"] == "ServiceAccount"}
    assert "watch" in names
    assert ACCOUNT not in names
    assert [document["metadata"]["name"] for document in after if document["kind"] == "Namespace"] == ["db-access"]


def test_m11_an_account_may_have_the_usual_name_of_the_namespace() -> None:
    files = rendered(namespace="db-access", account=NAMESPACE)
    user = f"system:serviceaccount:db-access:{NAMESPACE}"
    assert sum(user in text for text in strings(documents(files))) > 5
    assert not [text for text in strings(documents(files)) if "db-access:db-access" in text]


def test_m11_objects_keep_their_names() -> None:
    def names(files: dict[str, str]) -> list[str]:
        kinds = ("ServiceAccount", "Namespace")
        return [each["metadata"]["name"] for each in documents(files) if each["kind"] not in kinds]

    assert names(rendered(**OTHER)) == names(rendered(namespace=NAMESPACE, account=ACCOUNT))


def test_they_are_written_into_a_folder(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--namespace", "db-access", "--output", str(tmp_path)])
    assert done.exit_code == 0
    written = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.yaml")}
    assert written == set(rendered(**OTHER))
    assert "db-access:leasegate-watcher'" in (tmp_path / "policies/watcher-limits.yaml").read_text()


@pytest.mark.parametrize("name", ["", "Upper", "a.b", "x" * 64, "a'b"])
def test_no_other_text_gets_into_a_policy(tmp_path: Path, name: str) -> None:
    assert CliRunner().invoke(main, ["--namespace", name, "--output", str(tmp_path)]).exit_code == 2
    assert not list(tmp_path.iterdir())
