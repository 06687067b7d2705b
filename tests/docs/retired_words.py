"""Words that this project used to have, with what takes their place.

One word has one meaning: docs/adr/0048-one-word-one-meaning.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Retired(NamedTuple):
    """A retired word.

    Attributes:
        words: Its forms, in lower case; a form of several words has blanks.
        use: What takes its place.
        reason: Why it is retired.
    """

    words: tuple[str, ...]
    use: str
    reason: str


WORDS = (
    Retired(("login", "logins"), "session or auth at Vault, database user in PostgreSQL", "it meant both"),
    Retired(("adopter", "adopters"), "cleanup role", "adopting is what happens to a mount"),
    Retired(("catalogue", "catalogues"), "catalog", "there were two spellings"),
    Retired(
        ("superseded", "supersedes"), "replaced, retiring or Conflict", "it meant a state, a wire state and an error"
    ),
    Retired(("endt",), "REVOKING_TOKEN", "an abbreviation that nobody outside knows"),
    Retired(("quiesced",), "paused", "what is paused is issuance"),
    Retired(("undoing",), "recovery", "an attempt of unknown outcome is recovered"),
    Retired(("wish", "wishes"), "desired, requested or needed", "it is the field's noun nowhere"),
    Retired(("served namespace", "served namespaces"), "enabled namespace", "the README defines that"),
    Retired(("behind our back",), "by somebody else", "say who"),
    Retired(("lest", "anew", "of ours"), "so that not; again; Leasegate's", "old-fashioned"),
    Retired(("put right", "let go", "as ever"), "corrected; removed; as always", "idioms"),
)
"""Retired in identifiers, as a word of them, and in all texts."""

NAMES: Mapping[str, str] = {
    "Abandoned": "VaultCleanupSkipped",
    "ApprovalCanBeBypassed": "ApprovalNotEnforced",
    "ApprovalOutdated": "ApprovalStale",
    "CredentialRestored": "SecretRecreated",
    "DigestChanged": "GrantChanged",
    "Fact": "Condition",
    "Finder": "OrphanScanner",
    "LeasesEnding": "RevokingLeases",
    "LedgerUnknown": "IssuancePaused",
    "Losses": "LedgerGuard",
    "NamespaceNotServed": "NamespaceNotEnabled",
    "NoOwnLogin": "ServiceAuthNotConfigured",
    "NoStamp": "AdmissionPolicyMissing",
    "NotAsked": "CircuitOpen",
    "NotThere": "VaultNotFound",
    "Patience": "FailureWindow",
    "PutBack": "DriftCorrected",
    "QuiesceRequired": "LeasesInUse",
    "RequesterUnproven": "RequesterUnverified",
    "RevokePending": "RevocationPending",
    "RoleGone": "RoleDeleted",
    "Rounds": "PeriodicTask",
    "Standing": "RequestStatus",
    "Superseded": "Conflict",
    "Undoing": "IssuanceRecovery",
    "Unlooked": "SkippedMount",
    "held_attempt": "secret_attempt",
    "served_namespace": "enabled_namespace",
}
"""Retired names as a whole: of classes, Events, conditions, reasons and fields."""

ALLOWED: Mapping[str, tuple[str, str]] = {
    "benchmarks/beside.py": ("login", "it reads figures of an older commit"),
    "services/common/vault/hvac_auth.py": ("login", "the interface of hvac has get_login_token"),
    "tests/docs/retired_words.py": ("*", "this list"),
    "tests/docs/test_words.py": ("login", "it exempts the method of Vault's client"),
}
"""Files that have retired words (or all, ``*``), and why."""

LOGIN = r"auth_login\b|/login\b|#login\b|\.login\(|rolcanlogin|\bLOGIN\b|\bNOLOGIN\b|TEAM_LOGIN_HAS_POLICIES"
"""Vault's API path, the metric of it, its client's method, PostgreSQL's keywords, and the reason of an error that is
about the act of logging in, are no words for a session or a user."""
