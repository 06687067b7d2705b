"""Runs kubectl, which connects to the cluster: it reads the kubeconfig and its secrets, and this program does not."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cli.kubectl_vault.errors import CommandError

_LOG_LINE = re.compile(r"[EWIF]\d{4} \d\d:\d\d")  # klog's; the error itself follows
_ERROR = re.compile(
    r"error: |(?P<server>Error from server)(?: \((?P<reason>\w+)\))?: "
    r'|Unable to connect to the server: |The connection to the server |(?P<invalid>The \S+ ".*" is invalid)'
)
_PREFIX = re.compile(r"error: |Error from server(?: \(\w+\))?: |Unable to connect to the server: ")
_WARNING = "Warning: "
_BY_POLICY = re.compile(r"Validation failed for ValidatingAdmissionPolicy '[^']*' with binding '[^']*': ")


class KubectlError(CommandError):
    """kubectl failed; the text is its error message in one line.

    Attributes:
        reason: The server's reason, such as ``NotFound``; ``Unknown`` if it gave none, empty if no server answered.
    """

    def __init__(self, text: str, *, reason: str = "") -> None:
        """Keep both."""
        super().__init__(text)
        self.reason = reason


class Kubectl:
    """The kubectl on PATH, with the connection flags of this command."""

    def __init__(self, flags: Sequence[str], *, print_stderr: Callable[[str], None]) -> None:
        """Find kubectl; nothing is sent yet.

        Args:
            flags: Connection flags as kubectl takes them, such as ``--context=dev``.
            print_stderr: Receives prompts of credential plugins and, after a run that succeeded, the server's warnings.

        Raises:
            CommandError: PATH has no kubectl.
        """
        found = shutil.which("kubectl")
        if found is None:
            raise CommandError("there is no kubectl on PATH")
        self._program, self._flags, self._print_stderr = found, list(flags), print_stderr

    def run(self, *args: str) -> str:
        """Run one command, which may ask the user for a password as kubectl does.

        Args:
            args: What follows ``kubectl``.

        Returns:
            Its standard output.

        Raises:
            KubectlError: The command failed.
        """
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            with subprocess.Popen(
                [self._program, *args, *self._flags],
                stdout=output,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
            ) as child:
                stderr = read_stderr(child.stderr or (), self._print_stderr)
            if child.returncode:
                raise stderr.error or KubectlError(f"kubectl {args[0]} failed with exit code {child.returncode}")
            for warning in stderr.warnings:
                self._print_stderr(warning)
            output.seek(0)
            return output.read()


@dataclass(frozen=True, slots=True)
class Stderr:
    """Standard error of one run.

    Attributes:
        warnings: Warnings of the server, in its own words.
        error: The error message: the first line that begins as kubectl's errors do, with all lines after it.
    """

    warnings: list[str]
    error: KubectlError | None


def read_stderr(lines: Iterable[str], print_stderr: Callable[[str], None]) -> Stderr:
    """Read standard error of kubectl to its end.

    Args:
        lines: The lines, as they come.
        print_stderr: Receives what is neither error nor warning at once, as a credential plugin may prompt.
    """
    error: list[str] = []
    warnings: list[str] = []
    for line in map(str.rstrip, lines):
        if error or _ERROR.match(line):
            error.append(line)
        elif line.startswith(_WARNING):
            warnings.append(_WARNING + _BY_POLICY.sub("", line.removeprefix(_WARNING), count=1))
        elif line and not _LOG_LINE.match(line):
            print_stderr(line)
    return Stderr(warnings, _parse_error(error) if error else None)


def _parse_error(lines: Sequence[str]) -> KubectlError:
    text = _PREFIX.sub("", " ".join(" ".join(lines).split()), count=1)
    return KubectlError(text, reason=_reason(lines[0]))


def _reason(line: str) -> str:
    found = _ERROR.match(line)
    if found is None or not (found["server"] or found["invalid"]):
        return ""
    return found["reason"] or ("Invalid" if found["invalid"] else "Unknown")
