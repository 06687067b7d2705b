"""Connects to the access service: flags, environment variables, and the certificates that ``make env`` names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from cli.leasegate.errors import CommandError
from leasegate.access.v1 import operator_service_pb2_grpc
from services.common.config import ClientTls, HostPort, HostPortType, StartupRefusedError
from services.common.rpc.channel import connect

CERTS = "LEASEGATE_CERTS"
TIMEOUT_S = 120.0
"""Of a call; FindOrphans lists every lease."""

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FILES = {"cert": "operator.crt", "key": "operator.key", "ca": "ca.crt"}
_OPTIONS = (
    click.option(
        "--access",
        type=HostPortType(),
        envvar="LEASEGATE_ACCESS",
        show_envvar=True,
        default="127.0.0.1:7703",
        show_default=True,
        help="Address of the access service.",
    ),
    click.option(
        "--tls-cert",
        type=_FILE,
        help=f"Certificate of this command, a PEM file; else operator.crt in the folder ${CERTS}.",
    ),
    click.option("--tls-key", type=_FILE, help=f"Its private key, a PEM file; else operator.key in ${CERTS}."),
    click.option(
        "--tls-ca", type=_FILE, help=f"Certificate authority of the service, a PEM file; else ca.crt in ${CERTS}."
    ),
    click.option(
        "--server-name", metavar="NAME", help="Name in the service's certificate, where it is not the host of --access."
    ),
)


def connection(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags of the connection, which it passes on to ``operator``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@contextmanager
def operator(
    *, access: HostPort, tls_cert: Path | None, tls_key: Path | None, tls_ca: Path | None, server_name: str | None
) -> Iterator[operator_service_pb2_grpc.OperatorServiceStub]:
    """Connect to OperatorService; the connection is closed at the end of the block.

    Raises:
        CommandError: A certificate is not given, or cannot be used.
    """
    given = {"cert": tls_cert, "key": tls_key, "ca": tls_ca}
    files = {name: path or _in_folder(name) for name, path in given.items()}
    try:
        channel = connect(access, tls=ClientTls(**files, server_name=server_name), timeout_s=TIMEOUT_S)
    except StartupRefusedError as err:
        raise CommandError(err.message) from err
    with channel:
        yield operator_service_pb2_grpc.OperatorServiceStub(channel)


def _in_folder(name: str) -> Path:
    folder = os.environ.get(CERTS)
    if not folder:
        raise CommandError(
            f"--tls-{name} is not given: name the file, or set {CERTS} to the folder with {_FILES[name]} "
            "(`make env` prints it)"
        )
    path = Path(folder) / _FILES[name]
    if not path.is_file():
        raise CommandError(f"{path} does not exist: give --tls-{name}, or set {CERTS} to the folder that has it")
    return path
