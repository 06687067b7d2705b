"""The role service: what a login may do.

Owns ``<mount>/roles/*`` in Vault and reads ``sys/mounts/<mount>`` to see whose it is (``scope``). Only its own process and tests import it.
"""
