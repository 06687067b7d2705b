"""``kubectl vault``: approve, deny and look at DatabaseAccessRequests, as the guide prints it.

Speaks to Kubernetes alone, with the user's own kubeconfig and rights; holds and decides nothing itself. Nothing else imports it.
"""

from cli.kubectl_vault.commands import main

__all__ = ["main"]
