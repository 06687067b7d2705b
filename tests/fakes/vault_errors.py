"""The errors of answers of Vault, as ``services.common.vault.response`` makes them of what a server sends."""

from __future__ import annotations

import json

from services.common.errors import LeasegateError
from services.common.vault.response import decode


def answered(status: int, text: str, *, path: str = "x") -> LeasegateError:
    """The error of an answer with this HTTP status and text."""
    try:
        decode(status, json.dumps({"errors": [text]}).encode(), path=path, address="https://vault:8200")
    except LeasegateError as err:
        return err
    raise ValueError(f"{status} is no error")
