"""The ledger's database: its file, its tables, its migrations and its transactions."""
