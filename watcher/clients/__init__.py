"""The watcher's side of the three services: stubs, change feed, id of the ledger."""
