"""Compares the admission policies in the cluster with those of this release: where they differ, nothing new is issued.

A dry run proves that a policy refuses the watcher (``policy_trials``); that it refuses everybody else is said by its
text alone. The digests of the release's policies are in ``released_policies.json``, which ``make docs`` writes from
deploy/policies.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from services.common import logs
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.resources import SELF_SUBJECT_REVIEW, Body, Resource
from watcher.kube.result import PendingError

GROUP = "admissionregistration.k8s.io"
RESOURCES = {
    resource.kind: resource
    for resource in (
        Resource("ValidatingAdmissionPolicy", "validatingadmissionpolicies", GROUP),
        Resource("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", GROUP),
        Resource("MutatingAdmissionPolicy", "mutatingadmissionpolicies", GROUP),
        Resource("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", GROUP),
    )
}
USER = "system:serviceaccount:leasegate-system:leasegate-watcher"
"""The watcher's user name in the manifests; ``python -m deploy.render`` writes another one."""
OPERATORS = ("leasegate-tokens",)
"""Policies whose validations name what the operator chose; only the rest of them is compared."""
RELEASED = Path(__file__).with_name("released_policies.json")
LOOK_AGAIN_S = 10.0
TICK_S = 1.0
"""However many namespaces are enabled at once, the policies are compared once in so long."""
_DEFAULTS: Mapping[str, object] = {
    "matchPolicy": "Equivalent",
    "namespaceSelector": {},
    "objectSelector": {},
    "scope": "*",
}
LOG = logs.logger(__name__)


def digest_of(obj: Body, *, user: str = USER) -> str:
    """Digest of a policy or binding, without what the API server adds, and with the watcher's name of the manifests.

    Args:
        obj: The object, as a manifest has it or as the API server returns it.
        user: The watcher's user name in it.
    """
    spec = copy.deepcopy(obj.get("spec") or {})
    if obj["metadata"]["name"] in OPERATORS:
        spec.pop("validations", None)
    if "validationActions" in spec:
        spec["validationActions"] = sorted(spec["validationActions"])
    text = json.dumps([obj["kind"], _without_defaults(spec)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(_as_released(text, user).encode()).hexdigest()


def differences(found: Mapping[tuple[str, str], Body | None], *, user: str, released: Mapping[str, str]) -> list[str]:
    """What differs between the policies and bindings of the cluster and those of the release.

    Args:
        found: The objects by kind and name; None for one that does not exist.
        user: The watcher's own user name.
        released: Digests by ``kind/name``.
    """
    wrong = []
    for name, digest in released.items():
        kind, _, short = name.partition("/")
        obj = found.get((kind, short))
        if obj is None:
            if kind.startswith("Validating"):  # before Kubernetes 1.36 there are no others
                wrong.append(f"{kind} {short} is missing")
        elif obj["metadata"].get("deletionTimestamp"):
            wrong.append(f"{kind} {short} is being deleted")
        elif digest_of(obj, user=user) != digest:
            wrong.append(f"{kind} {short} is not that of this release for {user}")
    return wrong


def read_released() -> dict[str, str]:
    """The digests of this release."""
    digests: dict[str, str] = json.loads(RELEASED.read_text(encoding="utf-8"))
    return digests


def _without_defaults(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: each for key, each in value.items() if key not in _DEFAULTS or each != _DEFAULTS[key]}
        return {key: _without_defaults(each) for key, each in kept.items()}
    return [_without_defaults(each) for each in value] if isinstance(value, list) else value


def _as_released(text: str, user: str) -> str:
    """Put the manifests' names in place of those that ``python -m deploy.render`` writes."""
    if user == USER:
        return text
    text = text.replace(f"{USER}'", "somebody else'")  # what restricts another user restricts not this one
    parts, usual = user.split(":"), USER.split(":")
    if len(parts) != len(usual):
        return text
    namespace, account = parts[2:]
    text = text.replace(f"{user}'", f"{USER}'")
    text = re.sub(rf"((?:s|request)\.name == '){re.escape(account)}(?=')", rf"\g<1>{usual[3]}", text)
    return re.sub(rf"((?:orValue\(''\)|request\.namespace) == '){re.escape(namespace)}(?=')", rf"\g<1>{usual[2]}", text)


class PolicyAudit:
    """Knows whether the policies of this release are in force. Safe for threads.

    Args:
        api: Kubernetes.
        find_accepted: Tries what the policies must refuse, and says what was accepted; empty if nothing was.
        on_change: Called when they are in force, or not, after the opposite or for the first time.
        released: Digests by ``kind/name``.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        api: KubeClient,
        *,
        find_accepted: Callable[[], str] = lambda: "",
        on_change: Callable[[], None] = lambda: None,
        released: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._find_accepted, self._on_change, self._clock = api, find_accepted, on_change, clock
        self._released = read_released() if released is None else released
        self._why: str | None = None  # None before the first comparison
        self._asked = threading.Event()

    def what_is_wrong(self) -> str | None:
        """Why nothing new is issued, and what to do; empty if the policies are in force, None if that is not known."""
        return _text(self._why) if self._why else self._why

    def check_in_force(self) -> None:
        """Check that a credential may be issued.

        Raises:
            PendingError: The policies are not in force; says which.
        """
        why = "they are not compared yet" if self._why is None else self._why
        if why:
            raise PendingError(_text(why), reason="PoliciesNotInForce", requeue_after_s=LOOK_AGAIN_S)

    def ask_comparison(self) -> None:
        """Have ``run`` compare at its next tick."""
        self._asked.set()

    def run(self, stop: threading.Event, *, interval_s: float) -> None:
        """Compare every interval, sooner while something differs, and within a tick once ``ask_comparison`` asks."""
        since = self._clock()
        while not stop.wait(min(TICK_S, interval_s)):
            pause_s = interval_s if self._why == "" else min(interval_s, LOOK_AGAIN_S)
            if self._asked.is_set() or self._clock() - since >= pause_s:
                self._asked.clear()
                self.compare()
                since = self._clock()

    def compare(self) -> None:
        """Read policies and bindings, compare them with the release, and try them."""
        before = self._why
        try:
            now = "; ".join(differences(self._read(), user=self._own_name(), released=self._released))
            now = now or self._find_accepted()
        except KubeError as err:
            if err.is_passing:  # no answer says nothing: what was found before holds
                LOG.warning("admission policies not read", error=err.message)
                return
            now = f"they cannot be read ({err.message})"
        self._why = now
        if now != before:
            LOG.warning("admission policies compared", differences=now)
        if before is None or bool(now) != bool(before):
            self._on_change()

    def _own_name(self) -> str:
        review = {"apiVersion": SELF_SUBJECT_REVIEW.api_version, "kind": SELF_SUBJECT_REVIEW.kind}
        answer = self._api.create(SELF_SUBJECT_REVIEW, review | {"metadata": {"name": ""}}, namespace="")
        return str(answer["status"]["userInfo"]["username"])

    def _read(self) -> dict[tuple[str, str], Body | None]:
        names = [tuple(name.split("/", 1)) for name in self._released]
        return {(kind, name): self._find(RESOURCES[kind], name) for kind, name in names}

    def _find(self, resource: Resource, name: str) -> Body | None:
        try:
            return self._api.get(resource, name=name)
        except KubeError as err:
            if err.status == 404:
                return None
            raise


def _text(why: str) -> str:
    return (
        f"Nothing new is issued while Leasegate's admission policies are not in force: {why}. Apply deploy/policies and"
        " deploy/rbac of this release; what is issued is renewed and revoked as before."
    )
