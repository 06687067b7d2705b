"""Access requests: what was asked for, what was decided, which db_roles exist, and which changes are announced."""
