"""Which ledger access had, kept where a loss of access' disk does not reach: a ConfigMap in Leasegate's own namespace.

A ledger that was lost or replaced looks to access like a first start. The watcher says the id that it knows with every poll of the feed,
and access issues nothing while that is another one than its own (docs/adr/0024-unknown-ledger-pauses-issuance.md).
"""

from __future__ import annotations

from services.common import logs
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.resources import CONFIG_MAP, Body

LOG = logs.logger(__name__)
NAMESPACE, NAME, ENTRY = "leasegate-system", "leasegate-ledger", "ledger-id"


class LedgerId:
    """The id, read once and written when it changes.

    Args:
        api: Kubernetes.
    """

    def __init__(self, api: KubeClient) -> None:
        self._api = api
        self._stored: Body | None = None
        self._failing = False
        self._read = False

    @property
    def id(self) -> str:
        """The id that is known; empty before the first start of all."""
        return str(((self._stored or {}).get("data") or {}).get(ENTRY) or "")

    def read(self) -> None:
        """Read what is known, once.

        Raises:
            KubeError: It cannot be read. That there is none yet is no error.
        """
        if self._read:
            return
        try:
            self._stored = self._api.get(CONFIG_MAP, namespace=NAMESPACE, name=NAME)
        except KubeError as err:
            if err.status != 404:
                raise
            self._stored = None
        self._read = True

    def found(self, ledger_id: str, *, paused: bool) -> None:
        """Access has this ledger; remember it, unless it is held because another one is known. A failure is told and
        tried again.
        """
        if paused or not ledger_id or ledger_id == self.id:
            return
        try:
            self._store(ledger_id)
        except KubeError as err:
            self._read = False  # somebody else may have written it
            if not self._failing:
                text = f"{err.message}; apply deploy/rbac/watcher.yaml, which grants it"
                LOG.warning("the ledger's id is not remembered, so that its loss would not be noticed", error=text)
            self._failing = True
        else:
            LOG.info("ledger remembered", ledger=ledger_id, config_map=f"{NAMESPACE}/{NAME}")
            self._failing = False

    def _store(self, ledger_id: str) -> None:
        if self._stored is None:
            metadata = {"name": NAME, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/managed-by": "leasegate"}}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {ENTRY: ledger_id}}
            self._stored = self._api.create(CONFIG_MAP, body, namespace=NAMESPACE)
        else:
            self._stored = self._api.replace(CONFIG_MAP, self._stored | {"data": {ENTRY: ledger_id}})
