"""The guide's story on the local stack: its console blocks command by command, and what it promises beside them.

``guide.console`` holds the blocks as the guide "Manage PostgreSQL credentials" prints them. ``make demo`` runs the steps and prints
what it saw; the end-to-end tests run the same steps, also with processes killed and Vault sealed in between.
"""
