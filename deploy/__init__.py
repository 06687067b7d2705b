"""What is needed to run Leasegate: Kubernetes manifests, the Vault set-up, and the local stack.

Nothing of the product imports this package.
"""
