"""Models of issuance: the protocol explored exhaustively and the real code in any order of events.

``protocol`` is an abstract state machine of requests, attempts, replicas, watchers, Vault and PostgreSQL. It visits
every reachable state within its bounds. ``world`` runs the real access service one step at a time over a real ledger
and an in-memory Vault; Hypothesis picks the order.
"""
