"""The paths that the role service may touch; its policy in deploy/vault permits the same ones."""

from __future__ import annotations

from services.common.vault.scope import Scope

SCOPE = Scope("GET sys/mounts/<mount>", "GET,POST,DELETE <mount>/roles/*")
