"""The watcher: brings Kubernetes objects to the services and their answers to Kubernetes. It decides nothing.

It alone calls Kubernetes, and never Vault. It is level-triggered: an event queues a key, a worker reads the newest
object and sends all of it.

- ``app``: builds and runs everything. ``triggers``: which change makes which object due.
- ``kube``: client, caches, queues, conditions and Events; knows no kind of Leasegate.
- ``specs``: reads and writes the four kinds' specs and statuses. Pure.
- ``clients``: the services' stubs, access' change feed, and the id of the ledger.
- ``delivery``: the Secret, Role and RoleBinding of an access request, in enabled namespaces.
- ``reconcilers``: one file a kind, and what they share.

Of ``services`` it imports ``services.common`` without ``services.common.vault``.
"""
