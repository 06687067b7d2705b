"""The promises of the protocol, I1 to I7, checked in a world of the real code, and two more of the code.

A world is at rest where nothing happens by itself. I8: nothing is acknowledged past its end, and the ledger's end of a
lease is never later than Vault's. I9: cleanup roles are made on demand and removed afterwards. I10: no lease is
committed whose credential was made by other statements than approved. I11: nothing is acknowledged without an approval
of what is granted then. Whether a request is approved is computed from its decisions and its role here, too. I12: a
user that PostgreSQL refuses to drop is locked out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.access.domain import approval, renewal
from services.access.domain.models import AccessRequest, Attempt, AttemptState, DbRole, Decision
from services.access.ledger.db import schema

if TYPE_CHECKING:
    from tests.model.world.world import World

_ENDING = (AttemptState.REVOKING, AttemptState.RECOVERING)
_IN_USE = (AttemptState.ACTIVE, AttemptState.RETIRING)
_ROUNDS = 400
_TRIES = 30
"""How often a drop that PostgreSQL refuses is tried before it is looked whether the user is locked out."""
_SETTLES_WITHIN_S = 1800.0


def committed(world: World) -> None:
    """What each commit has to be like."""
    found, asked = _read(world)
    for attempt in found.values():
        former = world.known.get(attempt.id)
        if former is None or former.state is not attempt.state:
            _moved(world, former, attempt, asked[attempt.access_request_id])
    for uid in asked:
        active = [a for a in found.values() if a.access_request_id == uid and a.state is AttemptState.ACTIVE]
        if len(active) > 1:
            world.fail(f"I4: two attempts of {uid} are active")
    world.known, world.asked = found, asked


def _moved(world: World, former: Attempt | None, attempt: Attempt, request: AccessRequest) -> None:
    name = f"{attempt.access_request_id}/{attempt.sequence}"
    if attempt.state is AttemptState.ISSUED and not request.approved:
        world.fail(f"I3: {name} is issued without an approval")
    made_by = world.vault.made_by.get(attempt.database_user)
    if attempt.state is AttemptState.ISSUED and made_by != attempt.role_digest:
        world.fail(f"I10: {name} was made by {made_by} and not by what was approved")
    if attempt.state is AttemptState.ACTIVE and not request.approved:
        world.fail(f"I11: {name} is acknowledged without an approval")
    if attempt.state is AttemptState.ACTIVE and attempt.expired(world.now):
        world.fail(f"I8: {name} was acknowledged past its end")
    if attempt.state is AttemptState.ISSUING and not attempt.accessor:
        world.fail(f"{name} reads without a committed accessor")
    if (
        former
        and former.state in (AttemptState.ACTIVE, AttemptState.REPLACED)
        and attempt.state is AttemptState.RETIRING
    ):
        overlap = renewal.fitting_overlap_s(300.0, max_ttl_s=attempt.longest_s)
        world.kept_until[attempt.id] = min(world.now + overlap, attempt.ends_at or world.now)


def always(world: World) -> None:
    """What has to hold at every moment."""
    found, asked = _ledger(world)
    for attempt in found.values():
        request, now = asked[attempt.access_request_id], world.now
        if (
            not request.approved
            or attempt.ends_at is None
            or attempt.expired(now)
            or (request.ends_at or now + 1) <= now
        ):
            continue
        name, works = f"{request.uid}/{attempt.sequence}", world.vault.users.get(attempt.database_user) is True
        if not works and (attempt.state is AttemptState.ACTIVE or world.kept_until.get(attempt.id, 0.0) > now):
            world.fail(f"I2: {name} is acknowledged and its overlap is not over, but its user is gone")
        if not works and world.secrets.get(request.uid) == attempt.sequence and not world.unsecret:
            world.fail(f"I2+: the Secret holds {name}, whose user is gone")
        lease = world.vault.leases.get(attempt.lease_id)
        if lease and attempt.state in _IN_USE and attempt.ends_at > lease.ends_at:
            world.fail(f"I8: the ledger's end of {name} is later than Vault's")


def settle(world: World) -> None:
    """Let everything go on without faults until nothing happens by itself any more, and look at what is left."""
    until = world.now + _SETTLES_WITHIN_S
    for replica in world.replicas:
        replica.ledger.full = False
    if world.vault.failing:
        for _ in range(_TRIES):
            if not _moves(world) and not _waits(world):
                break
        _locked_out(world)
        world.vault.failing.clear()  # somebody mends what the team's statements need
    for _ in range(_ROUNDS):
        if world.broken or world.now > until:
            break
        if not _moves(world) and not _waits(world):
            return quiet(world)
    world.fail(f"I6: no way to an end: {_states(world)}")
    return None


def _locked_out(world: World) -> None:
    """What has to hold while PostgreSQL refuses to drop a user."""
    found, _ = _ledger(world)
    for attempt in found.values():
        if attempt.state in _ENDING and world.vault.users.get(attempt.database_user):
            world.fail(f"I12: {attempt.database_user} is to be dropped and can still log in; {_states(world)}")


def _moves(world: World) -> bool:
    """Let each process take what it has to do; answers whether there was anything."""
    moved = bool(world.jobs() or world.vault.calls)
    for job in world.jobs():
        world.run(job)
    for call in world.vault.orphans():
        while not call.done:
            world.vault.advance(call)
    for lease_id in sorted(world.vault.revoking):
        moved |= world.vault.revoke_in_background(lease_id)
    moved |= world.receive_cleanup_roles() | world.make_cleanup_roles()
    moved |= world.reassess(world.replicas[0])
    for replica in world.replicas:
        for key in world.due(replica):
            world.run(world.begin_work(replica, key))
            moved = True
    for number, watcher in enumerate(world.watchers):
        if number == 0 or not watcher.idle:  # the former leader only ends what it is at
            moved |= world.watch(number, world.replicas[0])
            if watcher.job and not watcher.job.over:
                world.run(watcher.job)
    if world.change or world.role != _approved_role(world):  # so that all is as it was when it was approved
        before = world.change, world.role
        world.change_role()
        moved |= (world.change, world.role) != before
    world.look()
    return moved


def _waits(world: World) -> bool:
    """Let time pass until something is due that ends or issues; answers whether there is."""
    found, asked = _ledger(world)
    times = [
        a.due_at
        for a in found.values()
        if a.due_at and a.state is not AttemptState.ACTIVE and a.state is not AttemptState.CLOSED
    ]
    times += [r.retry_at for r in asked.values() if r.approved and r.retry_at]
    times += [lease.ends_at for lease in world.vault.leases.values() if lease.how != "team"]
    later = [at for at in times if at > world.now]
    if later:
        world.passes(min(later) - world.now + 0.01)
    return bool(later)


def quiet(world: World) -> None:
    """What has to hold when nothing happens by itself."""
    found, asked = _ledger(world)
    request = asked[world.thing.uid]
    mine = [
        a
        for a in found.values()
        if a.access_request_id == request.uid and a.state is AttemptState.ACTIVE and request.approved
    ]
    active = mine[0] if mine else None
    left = {user for user in world.vault.users if active is None or user != active.database_user}
    if left:
        world.fail(f"I1: left in PostgreSQL: {sorted(left)}; {_states(world)}")
    if request.approved and (
        active is None
        or world.secrets.get(request.uid) != active.sequence
        or active.database_user not in world.vault.users
    ):
        secret_attempt = world.secrets.get(request.uid)
        world.fail(
            f"I5: active is {active and active.sequence}, the Secret holds {secret_attempt}, or its user is gone;"
            f" {_states(world)}"
        )
    for lease in world.vault.leases.values():
        if (active is None or lease.user != active.database_user) and world.vault.refuses(lease):
            world.fail(f"I7: a lease on {lease.user} is left that can never be revoked")
    if world.vault.cleanup_roles:
        world.fail(f"I9: cleanup roles are left: {sorted(world.vault.cleanup_roles)}")
    unfinished = [
        a for a in found.values() if a.state not in (AttemptState.ACTIVE, AttemptState.CLOSED, AttemptState.TOKEN_READY)
    ]
    if unfinished:
        world.fail(f"I6: nothing happens any more, but {_states(world)}")


def _ledger(world: World) -> tuple[dict[str, Attempt], dict[str, AccessRequest]]:
    return world.known, world.asked


def _read(world: World) -> tuple[dict[str, Attempt], dict[str, AccessRequest]]:
    with world.engine.connect() as connection:
        found = [
            Attempt(**row._mapping)
            for row in connection.execute(sa.select(schema.attempts).order_by(schema.attempts.c.id))
        ]
        stored, role, made = _rows(connection)
    asked = {
        request.uid: approval.assess(request, role, made.get(request.uid, ()), verified_only=False)
        for request in stored
    }
    return {attempt.id: attempt for attempt in found}, asked


def _rows(connection: Connection) -> tuple[list[AccessRequest], DbRole, dict[str, list[Decision]]]:
    """The access requests, their role, and the decisions by request."""
    stored = [AccessRequest(**row._mapping) for row in connection.execute(sa.select(schema.access_requests))]
    (role,) = (DbRole(**row._mapping) for row in connection.execute(sa.select(schema.db_roles)))
    made: dict[str, list[Decision]] = {}
    for row in connection.execute(sa.select(schema.decisions).order_by(schema.decisions.c.id)).mappings():
        decision = Decision(**{name: row[name] for name in Decision.__dataclass_fields__})
        made.setdefault(row["access_request_id"], []).append(decision)
    return stored, role, made


def _approved_role(world: World) -> str:
    """The definition of the role for which the approval of the present object was given; "r1" without one."""
    with world.engine.connect() as connection:
        stored, role, made = _rows(connection)
    request = next(each for each in stored if each.uid == world.thing.uid)
    granted = (
        name
        for name in ("r1", "r2")
        if approval.assess(request, replace(role, digest=name), made.get(request.uid, ()), verified_only=False).approved
    )
    return next(granted, "r1")


def _states(world: World) -> str:
    found, _ = _ledger(world)
    return ", ".join(f"{a.access_request_id}/{a.sequence} {a.state}" for a in found.values())
