"""The access service: the lease authority.

It alone issues credentials, keeps their leases alive and ends them, and it alone decides whether a request is approved. In Vault it owns
``<mount>/creds/*``, ``sys/leases/{renew,revoke}/<mount>/creds/*``, ``auth/token/create/leasegate`` and ``auth/token/revoke-accessor``; on
disk its ledger. Passwords and tokens are in neither ledger nor log. The protocol is the one of proofs/attempt_model.py: a transition here
is a transition there, with the same names.

From outside to inside: ``servicers`` decode and encode; ``requests``, ``issuing``, ``acknowledging`` and ``holding`` act for callers;
``queue`` has ``ending``, ``recovery``, ``renewal`` and ``overlap`` act in their time; ``finder`` and ``pruning`` look now and then;
``attempts``, ``approval``, ``lifetimes``, ``naming`` are pure rules; ``ledger`` stores.
"""
