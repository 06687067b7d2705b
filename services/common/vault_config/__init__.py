"""The Vaults that the operator names: the file of ``--vault-config``, which all four processes read. Pure, without I/O.

Vault is not called from here, so that the watcher may import it.
"""
