"""Which access requests an approval may count for: who asks for which db_role, for whom; pure.

The CustomResourceDefinition and an admission policy refuse the others. Rules of a CustomResourceDefinition skip what is
unchanged, so that an older access request passes them, and a policy cannot read the db_role: so access looks again, at
every decision and every claim.
"""

from __future__ import annotations

from services.access.domain.models import AccessRequest, DbRole, Subject

MOST_SUBJECTS = 64
KUBERNETES_OWN = "system:"
ALLOW_SUBJECTS_FROM = "leasegate.dev/allow-subjects-from"


def is_permitted(request: AccessRequest, db_role: DbRole | None, *, verified_only: bool) -> bool:
    """Whether an approval may count: the db_role's owner lets this access request name it, with these subjects.

    Args:
        request: The access request.
        db_role: Its db_role; None if the catalog never had it, so that its owner is not asked.
        verified_only: Whether it also has to be known who is behind the access request.
    """
    if verified_only and not request.requester_verified:
        return False
    return db_role is None or (db_role.allows(request.namespace) and not why_forbidden(request, db_role))


def why_forbidden(request: AccessRequest, db_role: DbRole | None) -> str:
    """Why its subjects may not read the credential; empty if they may.

    Args:
        request: The access request.
        db_role: Its db_role, whose owner may name further namespaces; None if the catalog never had it.
    """
    if len(request.subjects) > MOST_SUBJECTS:
        return f"an access request has at most {MOST_SUBJECTS} subjects, this one has {len(request.subjects)}"
    known = {"", request.namespace, request.role_namespace, *(db_role.allow_subjects_from if db_role else ())}
    return next(filter(None, (_why_not(subject, known, request) for subject in request.subjects)), "")


def _why_not(subject: Subject, known: set[str], request: AccessRequest) -> str:
    if subject.kind in ("User", "Group") and subject.name.startswith(KUBERNETES_OWN):
        return (
            f"the {subject.kind} {subject.name} is one of Kubernetes' own: name the ServiceAccount, user or group that"
            " needs the credential"
        )
    if subject.kind == "ServiceAccount" and subject.namespace not in known:
        return (
            f"the ServiceAccount {subject.namespace}/{subject.name} is of another namespace: the owner of the"
            f" PostgresRole {request.role_label} annotates it with {ALLOW_SUBJECTS_FROM}: {subject.namespace}"
        )
    return ""
