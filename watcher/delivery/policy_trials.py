"""Tries what the admission policies must refuse: dry runs, which store nothing.

The policies' text says what they refuse to whom, and is compared (``policy_audit``). That the API server uses them is
not in the text: it takes seconds to learn of a new one, and its admission of policies can be switched off.

Each trial is harmless even where a proxy takes the dry run out of the call: a decision for a digest that nothing has,
a Secret without data, a Role that nobody is bound to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from watcher.delivery.namespaces import Enablement, Namespaces
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.objects import Objects
from watcher.kube.resources import ROLE, SECRET, Body, Resource, key_of
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, POSTGRES_ROLE, SECRET_ENGINE
from watcher.specs.status import status_of

NAME = "leasegate-trial"
NO_DIGEST = "2:" + 64 * "0"
"""Digest that no access request has, so that an approval of it approves nothing."""


class Trial(NamedTuple):
    """A dry run that has to be refused.

    Attributes:
        policy: Name of the policy that refuses it.
        what: What is tried, in words.
        call: Tries it.
    """

    policy: str
    what: str
    call: Callable[[], Body]


class PolicyTrials:
    """Tries the policies by the watcher's own rights: RBAC permits each trial, so that only a policy refuses it.

    Args:
        api: Kubernetes.
        objects: The objects, one of which is tried to be changed.
        namespaces: The enabled namespaces, in one of which a Secret and a Role are tried to be created.
    """

    def __init__(self, api: KubeClient, *, objects: Objects, namespaces: Namespaces) -> None:
        self._api, self._objects, self._namespaces = api, objects, namespaces

    def find_accepted(self) -> str:
        """Try each policy; says which of them does not refuse what it must, and is empty if all do.

        A trial that something else refuses, or that nobody answers, says nothing. Nor does one that needs an object or
        an enabled namespace where there is none, and then nothing is issued either.
        """
        return "; ".join(
            f"the API server does not use ValidatingAdmissionPolicy {trial.policy}: it accepts {trial.what}, tried in a"
            " dry run"
            for trial in self._trials()
            if _is_accepted(trial)
        )

    def _trials(self) -> Iterator[Trial]:
        kinds = (ACCESS_REQUEST, POSTGRES_ROLE, SECRET_ENGINE, APP_BINDING)
        if found := next((each for kind in kinds if (each := self._first(kind))), None):
            yield Trial("leasegate-watcher-limits", "an annotation by the watcher", lambda: self._annotate(*found))
        if request := self._first(ACCESS_REQUEST):
            yield Trial("leasegate-decision", "a decision by the watcher", lambda: self._decide(request[1]))
        if namespace := self._enabled_namespace():
            secret = _new(SECRET, namespace, type="leasegate.dev/trial")
            role = _new(ROLE, namespace, rules=[])
            yield Trial(
                "leasegate-watcher-secrets",
                "a Secret of another type",
                lambda: self._api.create(SECRET, secret, namespace=namespace, dry_run=True),
            )
            yield Trial(
                "leasegate-watcher-readers",
                "a Role without an owner",
                lambda: self._api.create(ROLE, role, namespace=namespace, dry_run=True),
            )

    def _first(self, resource: Resource) -> tuple[Resource, Body] | None:
        obj = next(iter(self._objects.cache(resource)), None)
        return None if obj is None else (resource, obj)

    def _enabled_namespace(self) -> str:
        watched = self._namespaces.watched()
        return next((each for each in watched if self._namespaces.enablement(each) is Enablement.ENABLED), "")

    def _annotate(self, resource: Resource, obj: Body) -> Body:
        change = {"metadata": {"annotations": {"leasegate.dev/trial": "dry-run"}}}
        namespace, name = key_of(obj)
        return self._api.patch(resource, change, namespace=namespace, name=name, dry_run=True)

    def _decide(self, request: Body) -> Body:
        decision = {"type": "Approved", "status": "True", "approver": NAME, "digest": NO_DIGEST}
        others = [each for each in status_of(request).get("conditions") or [] if each.get("type") != "Approved"]
        meta = {name: request["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion")}
        body = _new(ACCESS_REQUEST, meta["namespace"], spec=request.get("spec")) | {
            "metadata": meta,
            "status": status_of(request) | {"conditions": [*others, decision]},
        }
        return self._api.replace(ACCESS_REQUEST, body, subresource="status", dry_run=True)


def _new(resource: Resource, namespace: str, **members: Any) -> Body:
    meta = {"name": NAME, "namespace": namespace}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, **members}


def _is_accepted(trial: Trial) -> bool:
    try:
        trial.call()
    except KubeError:
        return False
    return True
