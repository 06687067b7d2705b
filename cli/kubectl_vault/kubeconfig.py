"""Where the cluster is and who is asking: kubectl's connection flags on top of a kubeconfig, or a pod's own ServiceAccount."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import Configuration
from kubernetes.config import ConfigException, incluster_config, kube_config

from cli.kubectl_vault.problem import CommandError

_INCLUSTER: Any = incluster_config  # both are untyped
_KUBE: Any = kube_config
_MISSHAPEN = (AttributeError, TypeError, KeyError, ValueError)  # what the client raises on a file of another shape
_CHOSEN = "(chosen by kubectl vault)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """kubectl's connection flags by the same names; empty means not given.

    Attributes:
        as_user: ``--as``, the user to act as.
        request_timeout_s: Seconds that one call may take.
    """

    kubeconfig: str = ""
    context: str = ""
    cluster: str = ""
    user: str = ""
    namespace: str = ""
    server: str = ""
    token: str = field(default="", repr=False)
    certificate_authority: str = ""
    insecure: bool = False
    as_user: str = ""
    as_groups: tuple[str, ...] = ()
    as_uid: str = ""
    request_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Access:
    """A cluster, how to log in there, whom to act as, and the namespace meant where none is named."""

    configuration: Configuration = field(repr=False)
    impersonate: tuple[tuple[str, str], ...]
    namespace: str


def load(flags: Flags, environment: Mapping[str, str] = os.environ) -> Access:
    """Read the kubeconfig and lay the flags over it.

    Args:
        flags: What the command line says.
        environment: Where KUBECONFIG is looked up.

    Raises:
        Problem: There is none, it is no kubeconfig, or it lacks what the flags name.
    """
    configuration = Configuration()
    configuration.retries = False  # a person is told at once, and no redirect is followed with a token
    merger, context = _read(flags, environment), {}
    if merger is not None:
        context = _from_kubeconfig(merger, flags, configuration)
    elif flags.server:
        configuration.host = flags.server.rstrip("/")
    else:
        _from_pod(configuration)
    _overlay(configuration, flags)
    namespace = flags.namespace or context.get("namespace") or "default"
    return Access(configuration, _impersonation(flags, context.get("user_entry") or {}), str(namespace))


def _read(flags: Flags, environment: Mapping[str, str]) -> Any:
    """The kubeconfig, of several files merged; None where there is none."""
    if flags.kubeconfig and not Path(flags.kubeconfig).expanduser().is_file():
        raise CommandError(f"there is no kubeconfig {flags.kubeconfig}")
    paths = flags.kubeconfig or environment.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    try:
        merger = _KUBE.KubeConfigMerger(paths)
    except (OSError, yaml.YAMLError) as err:
        raise CommandError(f"can not read the kubeconfig {paths}: {' '.join(str(err).split())}") from err
    except (ConfigException, *_MISSHAPEN) as err:
        raise CommandError(f"{paths} is no kubeconfig") from err
    return merger if merger.config is not None else None


def _from_kubeconfig(merger: Any, flags: Flags, configuration: Configuration) -> dict[str, Any]:
    """Fill the configuration; answers the context, with the user's own entry as ``user_entry``."""
    try:
        context = _context(merger, flags)
        merger.config.value["contexts"].append(_KUBE.ConfigNode(_CHOSEN, {"name": _CHOSEN, "context": context}))
        _KUBE.KubeConfigLoader(merger.config, active_context=_CHOSEN, config_base_path=None).load_and_set(configuration)
        user = _entry(merger, "users", context["user"])["user"] if context.get("user") else {}
    except ConfigException as err:
        raise CommandError(
            f"the kubeconfig can not be used: {str(err).removeprefix('Invalid kube-config file. ')}"
        ) from err
    except (OSError, *_MISSHAPEN) as err:
        raise CommandError(f"the kubeconfig can not be used: {' '.join(str(err).split())}") from err
    return context | {"user_entry": user}


def _context(merger: Any, flags: Flags) -> dict[str, Any]:
    """The context that the flags make of the chosen one. With ``--token`` the kubeconfig's own login is left out."""
    files = (
        merger.config_files.values()
    )  # of several the first wins, as in kubectl; the client has it the other way round
    name = flags.context or next((file["current-context"] for file in files if file.get("current-context")), "")
    if not name and not flags.cluster:
        raise CommandError("the kubeconfig names no current-context: give --context")
    context = dict(_entry(merger, "contexts", name)["context"]) if name else {}
    if flags.token:
        context.pop("user", None)
    context |= {key: value for key, value in (("cluster", flags.cluster), ("user", flags.user)) if value}
    _entry(merger, "clusters", context.get("cluster", ""))
    return context


def _entry(merger: Any, kind: str, name: str) -> dict[str, Any]:
    """One entry by name; the others are named where it is missing."""
    entries = {entry.value["name"]: entry.value for entry in merger.config.value[kind]}
    if name not in entries:
        raise CommandError(
            f'the kubeconfig has no {kind.removesuffix("s")} "{name}", only: {", ".join(sorted(entries)) or "none"}'
        )
    return dict(entries[name])


def _from_pod(configuration: Configuration) -> None:
    try:
        _INCLUSTER.load_incluster_config(client_configuration=configuration)
    except ConfigException as err:
        raise CommandError("there is no cluster to talk to: set KUBECONFIG, or give --kubeconfig or --server") from err


def _overlay(configuration: Configuration, flags: Flags) -> None:
    if flags.server:
        configuration.host = flags.server.rstrip("/")
    if flags.token:
        configuration.api_key = {"BearerToken": f"Bearer {flags.token}"}
        configuration.refresh_api_key_hook = None
    if flags.certificate_authority:
        configuration.ssl_ca_cert = flags.certificate_authority
    if flags.insecure:
        configuration.verify_ssl = False
    if not configuration.verify_ssl:
        configuration.ssl_ca_cert = None


def _impersonation(flags: Flags, user: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Headers of https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation."""
    name = flags.as_user or user.get("as") or ""
    uid = flags.as_uid or user.get("as-uid") or ""
    groups = flags.as_groups or tuple(user.get("as-groups") or ())
    if groups and not name:
        raise CommandError("--as-group needs --as")
    headers = [
        ("Impersonate-User", name),
        ("Impersonate-Uid", uid),
        *(("Impersonate-Group", group) for group in groups),
    ]
    return tuple((key, str(value)) for key, value in headers if value)
