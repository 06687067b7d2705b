"""Code that at least two processes share: ``rpc`` (the gRPC skeleton), ``vault`` (all calls to Vault) and the rest."""
