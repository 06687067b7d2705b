"""Sets up a Vault (or OpenBao) for Leasegate: policies, token role, Kubernetes auth and its auth roles.

Run as ``python -m deploy.vault``. README.md beside this file says what each line is for and how to write it by hand.
Imports nothing of the application, so that it runs wherever Python does.
"""
