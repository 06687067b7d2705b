"""The access service: the lease authority.

It alone decides whether an access request is approved, issues credentials, renews their leases and revokes them. In
Vault it calls ``<mount>/creds/*``, ``sys/leases/{renew,revoke}/<mount>/creds/*``, ``auth/token/create/leasegate`` and
``auth/token/revoke-accessor``; on disk it owns the ledger. Passwords and tokens are in neither ledger nor log. The
protocol is described in docs/safety.md.

The rooms, each of which imports only those before it:

- ``domain``: records and rules, pure: ``decide`` (what is due next), ``attempt_states``, ``renewal``, ``approval``,
  ``names``
- ``ledger``: the database, queries by subject, and the guard against a lost ledger
- ``vault``: clients of Vault with their circuit breakers, tokens and leases
- ``requests``: access requests, decisions, the catalog, pauses of issuance and the change feed
- ``leases``: issue, ensure, acknowledge, renew, heartbeat, recover, admin
- ``api``: the gRPC services, which decode and encode
- ``worker``: the worker pool, what it does with each attempt, and the periodic tasks
- ``app``: wires all of it; ``__main__`` parses the options
"""
