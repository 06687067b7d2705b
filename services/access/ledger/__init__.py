"""The ledger: what was asked for, decided, begun and not ended yet, in SQLite (SQLAlchemy Core, Alembic).

It is written before Vault is asked for anything, so that a crash at any moment leaves a trace of whatever may exist. It never holds a
password or a token: accessors and lease ids alone. Each transition is one transaction, conditional on the state that it leaves. Imported by
the access service's domain alone; what a module here stores, its name says.
"""
