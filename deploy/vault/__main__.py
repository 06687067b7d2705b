"""The command ``python -m deploy.vault`` (``leasegate-vault-policies``): see README.md beside this file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from deploy.vault.api import VaultApi, VaultError
from deploy.vault.from_config import ChoiceError, mounts_of, options_of, read_entry
from deploy.vault.policies import MountError, Mounts, render_all
from deploy.vault.setup import AUDIENCE, AudienceError, KubernetesAuth, Outcome, Setup, Step, check_audience
from services.common.core_dumps import disable_core_dumps
from services.common.texts import escaped
from services.common.vault_config.entries import VaultEntry

_EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _mounts(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(path.strip("/") for path in values)


def _mount_options(command: Any) -> Any:
    options = [
        click.option(
            "--vault-config",
            type=_EXISTING_FILE,
            help="The file of --vault-config of the four processes: addresses, mounts, audience and names are read from"
            " it, in place of the options for them.",
        ),
        click.option("--vault", help="Name of the entry in that file; needed where it has more than one."),
        click.option(
            "--mount",
            "mounts",
            multiple=True,
            callback=_mounts,
            help="A mount path that Leasegate may use. Repeatable.",
        ),
        click.option(
            "--mount-prefix",
            "prefixes",
            multiple=True,
            help="A path that ends in a slash: every mount one segment below it may be used, as team/orders below "
            "team/. Repeatable.",
        ),
        click.option(
            "--list-leases",
            is_flag=True,
            help="Let the access service list these mounts' leases, to find those that it does not know "
            "(`leasegate orphans`).",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _vault_options(command: Any) -> Any:
    options = [
        click.option(
            "--address", envvar="VAULT_ADDR", help="Vault's address; that of the file without it. [env: VAULT_ADDR]"
        ),
        click.option(
            "--ca",
            envvar="VAULT_CACERT",
            type=_EXISTING_FILE,
            help="PEM file to verify Vault with. [env: VAULT_CACERT]",
        ),
        click.option(
            "--token-file",
            type=_EXISTING_FILE,
            help="File with a token that may write policies and auth methods. Else VAULT_TOKEN is used.",
        ),
        click.option("--namespace", envvar="VAULT_NAMESPACE", help="Vault namespace. [env: VAULT_NAMESPACE]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _kubernetes_options(command: Any) -> Any:
    options = [
        click.option(
            "--kubernetes-host",
            help="Address of the Kubernetes API server as Vault reaches it. Without it Kubernetes auth is left alone.",
        ),
        click.option(
            "--kubernetes-ca",
            type=_EXISTING_FILE,
            help="PEM file of the API server's authority. Leave it out where Vault runs in that cluster.",
        ),
        click.option(
            "--reviewer-jwt-file",
            type=_EXISTING_FILE,
            help="Token of a ServiceAccount with system:auth-delegator. Without it each token reviews itself.",
        ),
        click.option(
            "--kubernetes-mount", default="kubernetes", show_default=True, help="Path of the Kubernetes auth method."
        ),
        click.option(
            "--team-namespace",
            "team_namespaces",
            multiple=True,
            default=("*",),
            show_default=True,
            help="Namespaces whose team may log in. Repeatable.",
        ),
        click.option(
            "--team-service-account",
            "team_service_accounts",
            multiple=True,
            default=("vault",),
            show_default=True,
            help="Name of a team's ServiceAccount. Repeatable.",
        ),
        click.option(
            "--service-namespace",
            default="leasegate-system",
            show_default=True,
            help="Namespace of the services' own ServiceAccounts.",
        ),
        click.option(
            "--audience",
            default=AUDIENCE,
            show_default=True,
            help="Audience that tokens must be made for; none of the API server's own.",
        ),
        click.option(
            "--allow-any-vault",
            is_flag=True,
            help="Give a team's session the policies of all services, for processes that run with --allow-any-vault. "
            "Whoever can run a pod as the team's ServiceAccount can then take credentials without approval.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Set up a Vault (or OpenBao) for Leasegate.

    Policies are limited to the mounts that you name. Everything is read first and written only where it differs.
    """


@main.command()
@_mount_options
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write NAME.hcl files there instead of printing them.",
)
def policies(output: Path | None, **options: Any) -> None:
    """Print the four policies, or write them to files; Vault is not asked."""
    for name, text in render_all(_chosen(options, _entry(options))).items():
        if output is None:
            click.echo(f"### {name}\n{text}")
            continue
        output.mkdir(parents=True, exist_ok=True)
        (output / f"{name}.hcl").write_text(text)
        click.echo(output / f"{name}.hcl")


@main.command()
@_vault_options
@_mount_options
@_kubernetes_options
@click.option("--dry-run", is_flag=True, help="Say what would be changed, and write nothing.")
def setup(dry_run: bool, **options: Any) -> None:
    """Write policies, token role, Kubernetes auth and its roles; say of each whether it changed."""
    _run(options, dry_run=dry_run)


@main.command()
@_vault_options
@_mount_options
@_kubernetes_options
def check(**options: Any) -> None:
    """Compare a Vault with what `setup` would write; exit 1 if anything differs.

    A reviewer JWT cannot be read back, so it always counts as different: leave its option out.
    """
    steps = _run(options, dry_run=True)
    if any(step.outcome not in (Outcome.UNCHANGED, Outcome.SKIPPED) for step in steps):
        raise SystemExit(1)


_BYPASS = (
    "warning: with --allow-any-vault approval can be bypassed: whoever can become a team's ServiceAccount can take "
    "credentials unapproved. Give the services sessions of their own instead (docs/security/threat-model.md)."
)


# Options that the file decides: given beside it, they could only contradict it.
_OF_THE_FILE = (
    "mounts", "prefixes", "namespace", "audience", "team_service_accounts", "team_namespaces", "kubernetes_mount"
)  # fmt: skip


def _entry(options: dict[str, Any]) -> VaultEntry | None:
    """The entry of the file, if one is given; the options that it decides are then set from it."""
    file, name = options.pop("vault_config"), options.pop("vault")
    if file is None:
        if name:
            raise click.UsageError("--vault names an entry of --vault-config: give that file, too")
        return None
    context = click.get_current_context()
    given = [key for key in _OF_THE_FILE if context.get_parameter_source(key) is ParameterSource.COMMANDLINE]
    if given:
        flags = {"mounts": "mount", "prefixes": "mount-prefix", "team_service_accounts": "team-service-account"}
        flags |= {"team_namespaces": "team-namespace"}
        flag = flags.get(given[0], given[0]).replace("_", "-")
        raise click.UsageError(f"--{flag} and --vault-config exclude each other: the file says it")
    try:
        entry = read_entry(file, name)
        found = options_of(entry)
    except ChoiceError as err:
        raise click.UsageError(f"--vault-config: {err}") from err
    for key in ("address", "ca"):  # an operator may reach Vault elsewhere than the services do
        found[key] = options.get(key) or found[key]
    options.update(found)
    return entry


def _chosen(options: dict[str, Any], entry: VaultEntry | None) -> Mounts:
    mounts, prefixes, list_leases = (options.pop(key) for key in ("mounts", "prefixes", "list_leases"))
    try:
        return mounts_of(entry, list_leases=list_leases) if entry else Mounts(mounts, prefixes, list_leases=list_leases)
    except MountError as err:
        raise click.UsageError(str(err)) from err


def _run(options: dict[str, Any], *, dry_run: bool) -> list[Step]:
    mounts = _chosen(options, _entry(options))
    run = Setup(_api(options), dry_run=dry_run)
    try:
        check_audience(options["audience"])
        auth = _auth(options) if options["kubernetes_host"] else None
    except AudienceError as err:
        raise click.UsageError(f"--audience: {err}") from err
    if options["allow_any_vault"]:
        click.secho(_BYPASS, fg="yellow", err=True)
    try:
        return _print(run.policies(mounts)) + (_print(run.kubernetes(auth)) if auth else [])
    except VaultError as err:
        raise click.ClickException(escaped(str(err))) from err


def _print(steps: Iterable[Step]) -> list[Step]:
    done = []
    for step in steps:
        click.echo(escaped(f"{step.outcome.value:<13} {step.path}"))
        if step.note:
            click.echo(escaped(f"note: {step.note}"), err=True)
        done.append(step)
    return done


def _api(options: dict[str, Any]) -> VaultApi:
    if not options["address"]:
        raise click.UsageError("no address: give --address or --vault-config, or set VAULT_ADDR")
    token = _text(options["token_file"]) or _environment_token()
    return VaultApi(options["address"], ca=options["ca"], token=token, namespace=options["namespace"])


def _environment_token() -> str:
    if token := os.environ.get("VAULT_TOKEN"):
        return token
    raise click.UsageError("no token: give --token-file, or set VAULT_TOKEN")


def _auth(options: dict[str, Any]) -> KubernetesAuth:
    return KubernetesAuth(
        host=options["kubernetes_host"],
        ca=_text(options["kubernetes_ca"]),
        reviewer_jwt=_text(options["reviewer_jwt_file"]),
        mount=options["kubernetes_mount"],
        team_namespaces=tuple(options["team_namespaces"]),
        team_accounts=tuple(options["team_service_accounts"]),
        team_acts=options["allow_any_vault"],
        service_namespace=options["service_namespace"],
        service_roles=options.get("service_roles", {}),
        audience=options["audience"],
    )


def _text(path: Path | None) -> str | None:
    return path.read_text().strip() if path else None


if __name__ == "__main__":
    disable_core_dumps()
    main()
