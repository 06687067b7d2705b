"""The options: kubectl's connection flags by their own names, and those of approve and deny."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from services.common.durations import parse_seconds

COMMENT_LIMIT = 1024  # characters; Decision.message in leasegate/access/v1/approval.proto
_Command = Callable[..., Any]


class _Seconds(click.ParamType):  # type: ignore[type-arg]
    """A span like 30s, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_seconds(value)
        except ValueError as err:
            self.fail(str(err), param, ctx)


_CONNECTION = (
    click.option(
        "--kubeconfig",
        default="",
        metavar="FILE",
        help="Kubeconfig to use; else that of KUBECONFIG, else ~/.kube/config.",
    ),
    click.option("--context", default="", help="Context of the kubeconfig."),
    click.option("--cluster", default="", help="Cluster of the kubeconfig, in place of the context's."),
    click.option("--user", default="", help="User of the kubeconfig, in place of the context's."),
    click.option("-n", "--namespace", default="", help="Namespace of the requests; else the context's."),
    click.option("-s", "--server", default="", metavar="URL", help="Address of the API server."),
    click.option("--token", default="", help="Bearer token to log in with, in place of the kubeconfig's login."),
    click.option(
        "--certificate-authority",
        default="",
        metavar="FILE",
        help="Certificates that the API server's has to chain to.",
    ),
    click.option(
        "--insecure-skip-tls-verify", "insecure", is_flag=True, help="Do not check the API server's certificate."
    ),
    click.option("--as", "as_user", default="", metavar="USER", help="User to act as."),
    click.option(
        "--as-group", "as_groups", multiple=True, metavar="GROUP", help="Group to act as; may be given several times."
    ),
    click.option("--as-uid", default="", metavar="UID", help="UID to act as."),
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
        "-f", "--filename", "files", multiple=True, metavar="FILE", help="File with the requests, - for standard input."
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
        help="Longest wait for Leasegate's first look.",
    ),
)


def connection(command: _Command) -> _Command:
    """Give a command kubectl's connection flags; their names are those of ``kubeconfig.Flags``."""
    return _with(command, _CONNECTION)


def deciding(command: _Command) -> _Command:
    """Give a command the options of approve and deny, as ``words``, ``files``, ``reason`` and ``wait_s``, and the
    connection flags.
    """
    return _with(command, (*_DECIDING, *_CONNECTION))


def _with(command: _Command, options: tuple[Callable[[Any], Any], ...]) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command
