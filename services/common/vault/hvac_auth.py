"""hvac's auth methods over this project's own transport. The only importer of hvac.

hvac knows the requests of each method; ``Transport`` sends them, without the HTTP session of ``requests`` that hvac
uses by itself (docs/adr/0013-hvac-without-requests.md). ``services.common.vault.auth`` imports this module at the first
authentication, as hvac takes 6 MiB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hvac.adapters
from hvac.api.auth_methods import AppRole, Kubernetes, Userpass

from services.common.vault.response import Answer
from services.common.vault.target import AppRoleAuth, KubernetesAuth, UserpassAuth
from services.common.vault.transport import Transport

if TYPE_CHECKING:
    _Adapter = hvac.adapters.Adapter[Answer]  # generic in its stubs alone
else:
    _Adapter = hvac.adapters.Adapter


class _TransportAdapter(_Adapter):
    """The adapter interface of hvac over a ``Transport``; it answers ``Answer`` in place of dicts."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(base_uri=transport.base_uri, session=None)
        self._transport = transport

    def request(
        self, method: str, url: str, headers: Any = None, raise_exception: bool = True, **kwargs: Any
    ) -> Answer:
        """Send a request of one of hvac's API classes; of its options only the JSON body counts."""
        return self._transport.send(method.upper(), url.removeprefix("/v1/"), body=kwargs.get("json"))

    def get_login_token(self, response: Answer) -> str:
        """Part of hvac's interface."""
        return response.auth.client_token if response.auth else ""


def authenticate(transport: Transport, method: KubernetesAuth | UserpassAuth | AppRoleAuth) -> Answer:
    """Authenticate by one of the methods that hvac knows.

    Raises:
        LeasegateError: Vault refused or cannot be reached.
    """
    adapter = _TransportAdapter(transport)
    answer: Answer
    if isinstance(method, KubernetesAuth):
        answer = Kubernetes(adapter).login(method.auth_role, method.jwt, use_token=False, mount_point=method.mount)
    elif isinstance(method, UserpassAuth):
        answer = Userpass(adapter).login(method.username, method.password, use_token=False, mount_point=method.mount)
    else:
        answer = AppRole(adapter).login(method.role_id, method.secret_id, use_token=False, mount_point=method.mount)
    return answer
