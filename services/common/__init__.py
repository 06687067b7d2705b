"""Code that at least two processes share, by purpose: ``rpc`` (the gRPC skeleton), ``vault`` (the only importer of hvac) and the rest."""
