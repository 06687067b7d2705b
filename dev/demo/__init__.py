"""Runs the guide on the local stack: its console blocks command by command, and what its text promises.

``guide.console`` has the blocks as the guide "Manage PostgreSQL credentials" prints them. ``make demo`` runs the steps
and prints their results; the end-to-end tests run the same steps, also with processes killed and Vault sealed in
between.
"""
