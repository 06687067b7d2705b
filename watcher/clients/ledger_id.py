"""The id of access' ledger, stored where a loss of access' disk does not reach: in a ConfigMap of leasegate-system.

A ledger that was lost or replaced looks to access like a first start. The watcher sends the stored id with every poll
of the change feed, and access issues nothing while its own ledger has another id.
"""

from __future__ import annotations

from services.common import logs
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.resources import CONFIG_MAP, Body

LOG = logs.logger(__name__)
NAMESPACE, NAME, ENTRY = "leasegate-system", "leasegate-ledger", "ledger-id"


class LedgerId:
    """The stored id: read once, written when it changes.

    Args:
        api: Kubernetes.
    """

    def __init__(self, api: KubeClient) -> None:
        self._api = api
        self._config_map: Body | None = None
        self._loaded = False
        self._failing = False

    @property
    def id(self) -> str:
        """The stored id; empty before the first start."""
        return str(((self._config_map or {}).get("data") or {}).get(ENTRY) or "")

    def load(self) -> None:
        """Read the ConfigMap, once.

        Raises:
            KubeError: It cannot be read. That there is none yet is no error.
        """
        if self._loaded:
            return
        try:
            self._config_map = self._api.get(CONFIG_MAP, namespace=NAMESPACE, name=NAME)
        except KubeError as err:
            if err.status != 404:
                raise
            self._config_map = None
        self._loaded = True

    def store(self, ledger_id: str) -> None:
        """Store the id of access' ledger; a failure is logged, and the next poll tries again."""
        if not ledger_id or ledger_id == self.id:
            return
        try:
            self._write(ledger_id)
        except KubeError as err:
            self._loaded = False  # another writer may have changed it
            if not self._failing:
                LOG.warning(
                    "ledger id not stored: a loss of the ledger would go unnoticed",
                    error=err.message,
                    do="kubectl apply -f deploy/rbac/watcher.yaml",
                )
            self._failing = True
        else:
            LOG.info("ledger id stored", ledger=ledger_id, config_map=f"{NAMESPACE}/{NAME}")
            self._failing = False

    def _write(self, ledger_id: str) -> None:
        if self._config_map is None:
            metadata = {"name": NAME, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/managed-by": "leasegate"}}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {ENTRY: ledger_id}}
            self._config_map = self._api.create(CONFIG_MAP, body, namespace=NAMESPACE)
        else:
            self._config_map = self._api.replace(CONFIG_MAP, self._config_map | {"data": {ENTRY: ledger_id}})
