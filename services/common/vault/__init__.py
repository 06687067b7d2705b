"""Everything that speaks to Vault: targets, auth methods, sessions and the few requests that services make.

Services import it; watcher and command line never do.
"""
