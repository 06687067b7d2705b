"""Decides access requests as ``kubectl vault`` does, but over kept-alive connections: tests decide hundreds of them."""

from __future__ import annotations

import json
from typing import Any

from cli.kubectl_vault.decisions import Json
from cli.kubectl_vault.errors import CommandError, ConflictError
from cli.kubectl_vault.resource import Named
from dev.stack.stack import LocalStack
from watcher.kube.client import HttpKubeClient, KubeError
from watcher.specs.kinds import ACCESS_REQUEST


class FastRequests:
    """Access requests by HTTP, as ``cli.kubectl_vault.deciding`` needs them."""

    def __init__(self, api: HttpKubeClient) -> None:
        self._api = api

    def get_request(self, named: Named) -> Json:
        try:
            return self._api.get(ACCESS_REQUEST, namespace=named.namespace, name=named.name)
        except KubeError as err:
            raise CommandError(str(err)) from err

    def write_conditions(self, named: Named, request: Json, conditions: list[Json]) -> None:
        status = (request.get("status") or {}) | {"conditions": conditions}
        try:
            self._api.replace(ACCESS_REQUEST, request | {"status": status}, subresource="status")
        except KubeError as err:
            raise (ConflictError if err.status == 409 else CommandError)(str(err)) from err


def user_name(stack: LocalStack) -> str:
    """The user that the stack's kubeconfig names."""
    review: dict[str, Any] = json.loads(stack.kubectl("auth", "whoami", "-o", "json").stdout)
    return str(review["status"]["userInfo"]["username"])
