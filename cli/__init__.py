"""Command lines: ``kubectl_vault`` for teams and approvers, ``leasegate`` for operators.

They may use the contracts and the names, durations and errors of ``services.common``; never Vault.
"""
