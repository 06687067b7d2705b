"""The ledger: access requests, decisions, attempts and recoveries, in SQLite (SQLAlchemy Core, Alembic).

It is written before each request to Vault, so that a crash at any moment leaves a trace of whatever may exist. It never
has a password or a token, only accessors and lease ids. Each transition is one transaction, conditional on the state
that it leaves. ``db`` opens the file, ``inspect`` looks at one offline; each other module has the queries of one
subject.
"""
