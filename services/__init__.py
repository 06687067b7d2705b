"""The three services and the code that they share.

``engine``, ``roles`` and ``access`` each own one Vault path family and never import one another; ``common`` knows none of them (import-linter, pyproject.toml).
"""
