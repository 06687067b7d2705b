"""The options: kubectl's connection flags, which go to kubectl as they are, and those of approve and deny."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from services.common.durations import parse_seconds

COMMENT_LIMIT = 1024  # characters; Decision.message in leasegate/access/v1/approval.proto
_TIMEOUT_S = 30
_Command = Callable[..., Any]


class _Seconds(click.ParamType):  # type: ignore[type-arg]
    """A duration like 30s, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_seconds(value)
        except ValueError as err:
            self.fail(str(err), param, ctx)


_KUBECTL_FLAGS = {  # the parameter's name: kubectl's flag
    "kubeconfig": ("--kubeconfig", "FILE", "Kubeconfig to use; else that of KUBECONFIG, else ~/.kube/config."),
    "context": ("--context", "NAME", "Context of the kubeconfig."),
    "cluster": ("--cluster", "NAME", "Cluster of the kubeconfig, in place of the context's."),
    "user": ("--user", "NAME", "User of the kubeconfig, in place of the context's."),
    "server": ("--server", "URL", "Address of the API server."),
    "token": ("--token", "TOKEN", "Bearer token, in place of the kubeconfig's user."),
    "client_certificate": ("--client-certificate", "FILE", "Certificate to show to the API server."),
    "client_key": ("--client-key", "FILE", "Its private key."),
    "certificate_authority": ("--certificate-authority", "FILE", "Certificates that vouch for the API server's."),
    "tls_server_name": ("--tls-server-name", "NAME", "Name that the API server's certificate has to carry."),
    "proxy_url": ("--proxy-url", "URL", "Proxy to reach the API server by."),
    "act_as": ("--as", "USER", "User to act as."),
    "as_groups": ("--as-group", "GROUP", "Group to act as; may be given several times."),
    "as_uid": ("--as-uid", "UID", "UID to act as."),
    "as_user_extra": ("--as-user-extra", "KEY=VALUE", "Further attribute to act with; may be given several times."),
    "cache_dir": ("--cache-dir", "FOLDER", "Folder for what kubectl remembers of the API."),
}
_REPEATED = ("as_groups", "as_user_extra")
_SHORT = {"server": "-s"}
_INSECURE = "--insecure-skip-tls-verify"
_CONNECTION = (
    click.option("-n", "--namespace", default="", help="Namespace of the access requests; else the context's."),
    *(
        click.option(
            *([_SHORT[name]] if name in _SHORT else []),
            flag,
            name,
            multiple=name in _REPEATED,
            default=() if name in _REPEATED else "",
            metavar=metavar,
            help=text,
        )
        for name, (flag, metavar, text) in _KUBECTL_FLAGS.items()
    ),
    click.option(_INSECURE, "insecure", is_flag=True, help="Do not check the API server's certificate."),
    click.option(
        "--request-timeout",
        "request_timeout_s",
        type=_Seconds(),
        default=0,
        help="Longest time for one call; 30s if not given.",
    ),
)
_DECIDING = (
    click.argument("words", nargs=-1, metavar="[databaseaccessrequest NAME...]"),
    click.option(
        "-f",
        "--filename",
        "files",
        multiple=True,
        metavar="FILE",
        help="File with the access requests, - for standard input.",
    ),
    click.option(
        "--reason",
        default="",
        metavar="TEXT",
        help=f"Why, for the condition's message; at most {COMMENT_LIMIT} characters.",
    ),
    click.option(
        "--wait",
        "wait_s",
        type=_Seconds(),
        default="5s",
        show_default=True,
        help="Longest wait for Leasegate to process the request for the first time.",
    ),
)


def kubectl_flags(values: Mapping[str, Any]) -> list[str]:
    """The connection flags for kubectl, without the namespace.

    Args:
        values: Parameters that ``connection`` gives a command.
    """
    flags = [f"--request-timeout={round(1000 * (values.get('request_timeout_s') or _TIMEOUT_S))}ms"]
    for name, (flag, _, _) in _KUBECTL_FLAGS.items():
        given = values.get(name) or ()
        flags += [f"{flag}={value}" for value in ((given,) if isinstance(given, str) else given)]
    return flags + ([_INSECURE] if values.get("insecure") else [])


def connection(command: _Command) -> _Command:
    """Give a command kubectl's connection flags."""
    return _with(command, _CONNECTION)


_DIGEST = click.option(
    "--digest",
    default="",
    metavar="DIGEST",
    help="Digest (status.digest) of the grant that was looked at before; refused if another one would be granted.",
)


def approving(command: _Command) -> _Command:
    """Give a command what ``deciding`` gives, and ``digest``."""
    return _with(command, (*_DECIDING, _DIGEST, *_CONNECTION))


def deciding(command: _Command) -> _Command:
    """Give a command ``words``, ``files``, ``reason`` and ``wait_s`` of approve and deny, and the connection flags."""
    return _with(command, (*_DECIDING, *_CONNECTION))


def _with(command: _Command, options: tuple[Callable[[Any], Any], ...]) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command
