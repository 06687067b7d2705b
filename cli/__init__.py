"""Commands for people: ``kubectl_vault`` for teams and approvers.

May use the contracts and the names, durations and errors of ``services.common``; never Vault.
"""
