"""The watcher's side of the three services: stubs, the change feed, and the ledger's id."""
