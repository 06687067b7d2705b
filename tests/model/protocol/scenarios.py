"""Rules of the protocol, each with the scenario that fails without it, and the bounds of what is explored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tests.model.protocol.state import Event


class Rule(StrEnum):
    """The rules, by the names that ``tests.model.test_mutants`` takes them out of the code with."""

    COMMIT_CURRENT = "commit-current"
    RECOVER = "recover"
    SECOND_RECOVERY = "second-recovery"
    RISING_NUMBERS = "rising-numbers"
    CONDITIONAL_COMMITS = "conditional-commits"
    SAME_TOKEN = "same-token"
    RECOVERING_FIRST = "recovering-first"
    NEWEST_RECOVERY = "newest-recovery"
    CLEANUP_TOKEN = "cleanup-token"
    RETIRE_AFTER_ACK = "retire-after-ack"
    REPLACED_IS_DUE = "replaced-is-due"
    SECRET_IS_DUE = "secret-is-due"
    EXPIRED_IS_DUE = "expired-is-due"
    ABSENT_USER = "absent-user"


@dataclass(frozen=True, slots=True)
class Needed:
    """What a rule says, and the scenario that fails without it."""

    text: str
    scenario: str


RULES: Mapping[Rule, Needed] = {
    Rule.COMMIT_CURRENT: Needed("The lease is committed only if attempt and access request are current.", "deny"),
    Rule.RECOVER: Needed(
        "An unknown outcome is recovered by a cleanup role, not by revoking the accessor alone.", "deny"
    ),
    Rule.SECOND_RECOVERY: Needed("Recovery runs once more after Vault's default_max_request_duration.", "deny"),
    Rule.RISING_NUMBERS: Needed("A Secret is never overwritten by a lower attempt.", "former"),
    Rule.CONDITIONAL_COMMITS: Needed(
        "The commits of accessor and ISSUING are conditional: the attempt was neither revoked, replaced nor read.",
        "deny",
    ),
    Rule.SAME_TOKEN: Needed(
        "ISSUING names the accessor that is read with, and is refused if another was committed since.", "pre"
    ),
    Rule.RECOVERING_FIRST: Needed("A recovery begins with a commit that makes the attempt not current.", "suspect"),
    Rule.NEWEST_RECOVERY: Needed(
        "A recovery is committed before it begins; only the newest closes the attempt, after all earlier reads.",
        "deny",
    ),
    Rule.CLEANUP_TOKEN: Needed(
        "That commit holds the accessor of the cleanup token; the next recovery revokes it first.", "suspect"
    ),
    Rule.RETIRE_AFTER_ACK: Needed(
        "A replaced attempt is revoked only after a later one is acknowledged and the overlap is over.", "rotate"
    ),
    Rule.REPLACED_IS_DUE: Needed("As long as a replaced attempt is left, a new attempt is due.", "ttl"),
    Rule.SECRET_IS_DUE: Needed(
        "A caller that no longer holds the acknowledged credential gets a new attempt.", "secret"
    ),
    Rule.EXPIRED_IS_DUE: Needed(
        "An expired attempt cannot be acknowledged, and an expired active one is replaced.", "ttl"
    ),
    Rule.ABSENT_USER: Needed(
        "Revocation statements, the team's and the cleanup role's, create an absent user as NOLOGIN first.", "strict"
    ),
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """The bounds of an exploration.

    Attributes:
        attempts: Most attempts of the request.
        events: How often each event may happen.
        replicas: How many replicas of the access service.
        active: Whether it begins with an active attempt in the Secret.
        strict: Whether revocation statements fail on an absent user.
    """

    attempts: int
    events: Mapping[Event, int] = field(default_factory=dict)
    replicas: int = 2
    active: bool = False
    strict: bool = False


SCENARIOS: Mapping[str, Scenario] = {
    "deny": Scenario(3, {Event.KILL: 1, Event.END: 1}),
    "kills": Scenario(3, {Event.KILL: 2, Event.END: 1}),
    "replicas": Scenario(2, {Event.KILL: 1, Event.END: 1}, replicas=3),
    "suspect": Scenario(3, {Event.KILL: 1, Event.END: 1, Event.SUSPECT: 1}),
    "cut": Scenario(3, {Event.VAULT_CRASH: 1, Event.CUT: 1, Event.END: 1}),
    "pre": Scenario(2, {Event.PREPARE: 1, Event.KILL: 1, Event.END: 1}),
    "former": Scenario(3, {Event.FORMER_LEADER: 1, Event.KILL_WATCHER: 1}),
    "rotate": Scenario(4, {Event.ROTATE: 1, Event.FORMER_LEADER: 1}, active=True),
    "rotate-kill": Scenario(4, {Event.ROTATE: 1, Event.KILL: 1, Event.END: 1}, active=True),
    "ttl": Scenario(4, {Event.TOKEN_TTL: 1, Event.KILL_WATCHER: 1}),
    "secret": Scenario(4, {Event.DELETE_SECRET: 1, Event.FORMER_LEADER: 1}, active=True),
    "strict": Scenario(2, {Event.KILL: 1, Event.END: 1, Event.SUSPECT: 1}, strict=True),
    "recreate": Scenario(3, {Event.END: 1, Event.RECREATE: 1, Event.KILL: 1}),
}

STATES: Mapping[str, int] = {
    "deny": 8_901,
    "kills": 278_747,
    "replicas": 19_557,
    "suspect": 110_757,
    "cut": 675_193,
    "pre": 105_570,
    "former": 412_897,
    "rotate": 36_100,
    "rotate-kill": 26_206,
    "ttl": 367_068,
    "secret": 58_829,
    "strict": 59_151,
    "recreate": 51_912,
}
"""How many states each scenario has: a change of the model that loses some is seen."""
