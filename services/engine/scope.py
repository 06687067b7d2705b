"""The paths that the engine service may touch; its policy in deploy/vault permits the same ones."""

from __future__ import annotations

from services.common.vault.scope import Scope

SCOPE = Scope("GET,POST,DELETE sys/mounts/<mount>", "POST sys/mounts/<mount>/tune", "GET,POST,DELETE <mount>/config/*")
