"""Bodies of the Secret, Role and RoleBinding that give an access request's subjects its credential. Pure.

The Secret's name depends on the request's uid alone, so that no crash creates two. Its annotation
``leasegate.dev/content`` shows a restarted watcher whether somebody changed the credential, without storing it: a hash
of attempt, user name and password under a salt that is new for each write. Whoever can read the annotation can read
the password beside it. Where the annotation alone is copied, into a log of metadata for example, it reveals nothing,
as Vault's passwords are random with more than a hundred bits. Whoever can write the Secret can also write a matching
hash, but deceives only its readers, whom they can give any password anyway.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

from leasegate.access.v1 import lease_pb2
from watcher.kube.resources import (
    ROLE,
    ROLE_BINDING,
    SECRET,
    Body,
    Resource,
    annotation,
    controller_uid,
    key_of,
    uid_of,
)
from watcher.specs.access_request import binding_subjects
from watcher.specs.kinds import ACCESS_REQUEST, ATTEMPT, CONTENT

NAME_CHARS = 253
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_ATTEMPT_NUMBER = re.compile(r"[1-9][0-9]{0,8}")  # an int32 of the contract
_LABELS = {"app.kubernetes.io/managed-by": "leasegate"}
_KEPT = ("namespace", "name", "uid", "resourceVersion", "ownerReferences", "finalizers", "deletionTimestamp")
OPAQUE = "Opaque"
SELECTOR = ",".join(f"{name}={value}" for name, value in _LABELS.items())
"""Label selector of all objects that this module describes."""


def secret_name(obj: Body) -> str:
    """``{request}-{6 of a-z0-9}``: the six derive from the uid; at most 253 characters."""
    number = int.from_bytes(hashlib.sha256(uid_of(obj).encode()).digest()[:8], "big")
    letters = ""
    for _ in range(6):
        number, digit = divmod(number, len(_LETTERS))
        letters += _LETTERS[digit]
    return f"{obj['metadata']['name'][: NAME_CHARS - 7].rstrip('.-')}-{letters}"


def access_request_name(secret: str) -> str:
    """Name of the access request whose Secret has this name; one of full length is cut and is not found."""
    return secret[:-7]


def reader_role_name(obj: Body) -> str:
    """Name of Role and RoleBinding, as KubeVault has it.

    A name that is too long is cut and gets a digest of the uid, so that two requests never share one.
    """
    key = key_of(obj)
    whole = f"DatabaseAccessRequest-{key.namespace}-{key.name}-credential-reader"
    if len(whole) <= NAME_CHARS:
        return whole
    digest = hashlib.sha256(uid_of(obj).encode()).hexdigest()[:12]
    return f"{whole[: NAME_CHARS - 31].rstrip('.-')}-{digest}-credential-reader"


def secret_body(obj: Body, credential: lease_pb2.Credential) -> Body:
    """The Secret of a request, with the credential of one attempt."""
    username, password = credential.username.encode(), credential.password.encode()
    salt = secrets.token_bytes(16)
    body = _body(SECRET, obj, secret_name(obj))
    digest = _digest(salt, uid=uid_of(obj), attempt=credential.attempt, username=username, password=password)
    body["metadata"]["annotations"] = {ATTEMPT: str(credential.attempt), CONTENT: f"{salt.hex()}:{digest}"}
    body["type"] = OPAQUE
    body["data"] = {"username": base64.b64encode(username).decode(), "password": base64.b64encode(password).decode()}
    return body


def role_body(obj: Body) -> Body:
    """The Role, which grants get on the request's one Secret."""
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret_name(obj)], "verbs": ["get"]}
    return _body(ROLE, obj, reader_role_name(obj)) | {"rules": [rule]}


def role_binding_body(obj: Body) -> Body:
    """The RoleBinding, which gives the Role to the request's subjects."""
    ref = {"apiGroup": ROLE.group, "kind": ROLE.kind, "name": reader_role_name(obj)}
    return _body(ROLE_BINDING, obj, reader_role_name(obj)) | {
        "roleRef": ref,
        "subjects": [_with_group(s) for s in binding_subjects(obj)],
    }


def is_controlled_by(found: Body, obj: Body) -> bool:
    """Whether an object is controlled by this very request."""
    return controller_uid(found) == uid_of(obj)


def may_be_written(found: Body, obj: Body) -> bool:
    """Whether an object of a needed name is the request's, or nobody's: made by Leasegate, and without its controller.

    A restore from a backup, or ``kubectl delete --cascade=orphan``, leaves such objects.
    """
    owner = controller_uid(found)
    labels = found["metadata"].get("labels") or {}
    return owner == uid_of(obj) or (not owner and _LABELS.items() <= labels.items())


def obstacle_of(secret: Body) -> str:
    """What of a Secret keeps another credential from being written into it; empty if nothing does."""
    if secret["metadata"].get("deletionTimestamp"):
        return "is being deleted"
    if secret.get("immutable"):
        return "is immutable"
    kind = secret.get("type") or OPAQUE
    return f"is of type {kind}" if kind != OPAQUE else ""


def finalizers_of(found: Body) -> list[str]:
    """Finalizers of an object: Leasegate puts none on what it writes, so they are somebody else's."""
    return list(found["metadata"].get("finalizers") or [])


def changes_for(found: Body, body: Body) -> Body:
    """The merge patch that writes a body into an object of this uid and version, and leaves what others put there.

    Their labels, annotations, finalizers, owners and keys stay (field report 7).
    """
    meta, present = body["metadata"], found["metadata"]
    changed: Body = {name: meta[name] for name in ("labels", "annotations") if name in meta}
    changed["ownerReferences"] = _owners(present, meta["ownerReferences"])
    changed |= {"uid": present["uid"], "resourceVersion": present["resourceVersion"]}
    return {"metadata": changed, "data": body["data"]}


def written_into(found: Body, body: Body) -> Body:
    """A Role or RoleBinding as it was read, with the labels, the owner and the grant of a body."""
    meta, present = body["metadata"], found["metadata"]
    merged = {
        **present,
        "labels": {**(present.get("labels") or {}), **meta["labels"]},
        "ownerReferences": _owners(present, meta["ownerReferences"]),
    }
    return {**found, **{name: value for name, value in body.items() if name != "metadata"}, "metadata": merged}


def _owners(present: Body, wanted: list[Body]) -> list[Body]:
    """The wanted owner, and those that are there and control nothing."""
    uids = {owner["uid"] for owner in wanted}
    others = present.get("ownerReferences") or []
    return [*wanted, *(owner for owner in others if not owner.get("controller") and owner.get("uid") not in uids)]


def grant_of(body: Body) -> Body:
    """Rules, roleRef and subjects of a Role or RoleBinding, as the API server defaults them."""
    return {
        "rules": body.get("rules"),
        "roleRef": body.get("roleRef"),
        "subjects": [_with_group(s) for s in body.get("subjects") or []],
    }


def grants_the_same(found: Body, wanted: Body) -> bool:
    """Whether a Role or RoleBinding has the wanted grant, and the labels by which ``SELECTOR`` finds it."""
    labels = found["metadata"].get("labels") or {}
    return grant_of(found) == grant_of(wanted) and _LABELS.items() <= labels.items()


def without_values(secret: Body) -> Body:
    """What the cache keeps of a Secret: no value, and of a request's Secret the attempt of its credential."""
    meta = secret["metadata"]
    kept = {name: meta[name] for name in _KEPT if name in meta}
    if not controller_uid(secret) and _LABELS.items() <= (meta.get("labels") or {}).items():
        kept["labels"] = _LABELS
    found = {"metadata": kept, "type": secret.get("type", "")}
    if secret.get("immutable"):
        found["immutable"] = True
    if _is_of_request(secret):
        found["secret_attempt"] = attempt_of(secret)
    return found


def attempt_of(secret: Body) -> int:
    """Number of the attempt whose credential is in a Secret; 0 if user name, password or annotations were changed."""
    number, content = annotation(secret, ATTEMPT), annotation(secret, CONTENT)
    if not _ATTEMPT_NUMBER.fullmatch(number):
        return 0
    salt, _, digest = content.partition(":")
    data = secret.get("data") or {}
    try:
        username, password = (base64.b64decode(data[key], validate=True) for key in ("username", "password"))
        wanted = _digest(
            bytes.fromhex(salt),
            uid=controller_uid(secret),
            attempt=int(number),
            username=username,
            password=password,
        )
        is_unchanged = hmac.compare_digest(wanted.encode(), digest.encode())  # bytes, as any character may stand there
    except (KeyError, ValueError):
        return 0
    return int(number) if is_unchanged else 0


def _is_of_request(secret: Body) -> bool:
    owners = secret["metadata"].get("ownerReferences") or []
    return any(owner.get("controller") and owner.get("kind") == ACCESS_REQUEST.kind for owner in owners)


def _digest(salt: bytes, *, uid: str, attempt: int, username: bytes, password: bytes) -> str:
    parts = (salt, uid.encode(), str(attempt).encode(), username, password)
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hexdigest()


def _body(resource: Resource, obj: Body, name: str) -> Body:
    owner = {
        "apiVersion": ACCESS_REQUEST.api_version,
        "kind": ACCESS_REQUEST.kind,
        "name": obj["metadata"]["name"],
        "uid": uid_of(obj),
        "controller": True,
    }
    meta = {"name": name, "namespace": key_of(obj).namespace, "labels": dict(_LABELS), "ownerReferences": [owner]}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}


def _with_group(subject: Body) -> Body:
    """A subject as the API server defaults it."""
    group = subject.get("apiGroup") or ("" if subject.get("kind") == "ServiceAccount" else ROLE_BINDING.group)
    found = {"kind": subject.get("kind", ""), "name": subject.get("name", "")}
    found |= {"apiGroup": group} if group else {}
    return found | ({"namespace": subject["namespace"]} if subject.get("namespace") else {})
