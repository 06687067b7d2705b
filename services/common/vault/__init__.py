"""Everything that speaks to Vault: targets, logins, sessions and the few calls that services make.

The only importer of hvac, whose login methods are used over an adapter of our own (``transport``): short, without redirects,
proxies or anything else from the environment. Services import it; watcher and command line never do.
"""
