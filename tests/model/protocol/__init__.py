"""Issuance explored exhaustively: the attempt protocol keeps its promises in every order of events.

``explore`` visits every state that is reachable within the bounds of ``scenarios``, breadth first, and reports the
shortest trace to what breaks a promise. One transition is one step; steps of different processes interleave in any
order:

- ledger: one access request (pending, approved, ended by a denial or a deletion, created again with another uid) and
  its numbered attempts. Each transaction is one step.
- access replicas, two or three: each runs one handler or worker at a time, is killed between any two steps and starts
  again without memory. A worker may take what a living process works on (``SUSPECT``). A token that is made while the
  request is pending (``PREPARE``) is known to its maker alone.
- watcher, and a paused former leader that claims, writes and acknowledges late. Each is killed or stops waiting for its
  claim at any step.
- Vault: tokens, leases, and reads in flight that go on without their client, break off before or after CREATE ROLE
  (which leaves a database user without a lease), or register a lease under a token that was revoked meanwhile. A
  revocation by accessor runs in the background, one by lease id at once.
- PostgreSQL: the one database user of an attempt, with LOGIN, or with NOLOGIN if a cleanup role created it. With
  ``strict`` statements a revocation fails if the user is absent.
- Secret: written with its resourceVersion, in one step, with the attempt's number; ``DELETE_SECRET`` is a user's
  deletion. Rotation with overlap.

Left out: renewal, refused drops, edited connections, a lost or restored ledger, role changes and digests, unmounting,
and time itself (a wait is a guard: no read that began before is in flight). A lease under a revoked token whose
database user was recovered is left to its TTL.

The states are the ledger's own ``AttemptState``, and the end of access its own ``ENDING``.
``tests.model.test_protocol`` compares the transitions with ``attempt_states.ALLOWED``, ``tests.model.test_code_rules``
the decisions with the code's.
"""
