"""``python -m deploy.render``: writes the policies and RBAC with the names of an installation.

The manifests are written for the namespace ``leasegate-system`` and the ServiceAccount ``leasegate-watcher``. A policy
knows the watcher by its user name alone, so that under another name it restricts nothing: both names have to be
replaced in all files at once. ``kubectl apply`` takes the rendered folder in place of ``deploy``.
"""

from __future__ import annotations

import re
from pathlib import Path

import click

NAMESPACE, ACCOUNT = "leasegate-system", "leasegate-watcher"
FOLDERS = ("policies", "rbac")
_DEPLOY = Path(__file__).parent
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
# Where the ServiceAccount's name stands. ClusterRoles and policies begin with the same words and keep their names.
_ACCOUNT_PLACES = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        rf"(system:serviceaccount:[^:']+:){ACCOUNT}(?=')",
        rf"((?:s|request)\.name == '){ACCOUNT}(?=')",
        rf"(kind: ServiceAccount\n +name: ){ACCOUNT}$",
        rf"(kind: ServiceAccount\nmetadata:\n  name: ){ACCOUNT}$",
        rf"(resources: \[serviceaccounts/token\]\n +resourceNames: \[){ACCOUNT}(?=\])",
    )
)


def render(text: str, *, namespace: str, account: str) -> str:
    """A manifest with the names of an installation.

    Args:
        text: The manifest, for ``leasegate-system`` and ``leasegate-watcher``.
        namespace: Namespace of the processes.
        account: ServiceAccount of the watcher.
    """
    text = re.sub(rf"\b{NAMESPACE}\b(?!-)", namespace, text)  # first, as the account may have this very name
    for place in _ACCOUNT_PLACES:
        text = place.sub(rf"\g<1>{account}", text)
    return text


def rendered(*, namespace: str, account: str) -> dict[str, str]:
    """All manifests of policies and RBAC by path, such as ``policies/decision.yaml``."""
    files = (file for folder in FOLDERS for file in sorted((_DEPLOY / folder).rglob("*.yaml")))
    return {
        file.relative_to(_DEPLOY).as_posix(): render(file.read_text(), namespace=namespace, account=account)
        for file in files
    }


def _checked(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise click.BadParameter("write a name of Kubernetes: at most 63 small letters, digits and dashes")
    return value


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--namespace", default=NAMESPACE, show_default=True, callback=_checked, help="Namespace of the processes."
)
@click.option(
    "--service-account", "account", default=ACCOUNT, show_default=True, callback=_checked, help="The watcher's."
)
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write into.")
def main(namespace: str, account: str, output: Path) -> None:
    """Write deploy/policies and deploy/rbac with the names of an installation."""
    for name, text in rendered(namespace=namespace, account=account).items():
        file = output / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    click.echo(f"{output}: policies and rbac for system:serviceaccount:{namespace}:{account}")


if __name__ == "__main__":
    main()
