"""The gRPC skeleton that every service and every caller shares.

It exists so that transport security, who may call, deadlines, errors, health and draining are written once and cannot
drift apart. ``channel``, ``status`` and ``deadline`` are for callers too (watcher and cli) and import neither a Vault
client nor kubernetes; ``server`` is for services alone. A servicer decodes, calls the domain once, encodes, and raises
a LeasegateError where that fails.
"""
