"""Code that at least two processes share, by purpose: ``rpc`` (the gRPC skeleton), ``vault`` (all that speaks to Vault) and the rest."""
