"""``kubectl vault``: approves, denies and shows access requests, as the guide prints it.

kubectl connects to Kubernetes, with the user's own kubeconfig and rights; the admission policies have the last word.
"""

from cli.kubectl_vault.commands import main

__all__ = ["main"]
