"""Delivers credentials: the only package that writes Secrets, Roles and RoleBindings."""
