"""Everything that speaks to Vault: targets, auth methods, sessions and the few requests that services make.

hvac is imported by ``hvac_auth`` alone. Services import this package; watcher and command line never do.
"""
