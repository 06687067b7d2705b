"""Leasegate's four kinds, its annotations and its finalizer, as the API server names them."""

from __future__ import annotations

from watcher.kube.resources import Resource

APP_BINDING = Resource("AppBinding", "appbindings", "appcatalog.appscode.com", "v1alpha1")
SECRET_ENGINE = Resource("SecretEngine", "secretengines", "engine.kubevault.com", "v1alpha1")
POSTGRES_ROLE = Resource("PostgresRole", "postgresroles", "engine.kubevault.com", "v1alpha1")
ACCESS_REQUEST = Resource("DatabaseAccessRequest", "databaseaccessrequests", "engine.kubevault.com", "v1alpha1")

FINALIZER = "leasegate.dev/finalizer"
REQUESTED_BY = "leasegate.dev/requested-by"
"""User who created an access request or last changed its spec; an admission policy writes it."""
ON_BEHALF_OF = "leasegate.dev/on-behalf-of"
"""For whom an access request is, as its writer claims: user names with commas between them."""
VERIFIED_BY = "leasegate.dev/verified-by"
"""User who vouches for ``ON_BEHALF_OF``; admission policies let only those write it who may."""
ADOPT_MOUNT = "leasegate.dev/adopt-mount"
"""On a SecretEngine: ``true`` for a mount that exists already, ``from-cluster:UID`` for one of a rebuilt cluster."""
SAME_DATABASE = "leasegate.dev/same-database-moved"
"""On a SecretEngine: states that another address is the same database."""
ALLOW_SUBJECTS_FROM = "leasegate.dev/allow-subjects-from"
"""On a PostgresRole: namespaces whose ServiceAccounts may be subjects of its access requests."""
ATTEMPT = "leasegate.dev/attempt"
"""On a Secret: number of the attempt whose credential it holds."""
CONTENT = "leasegate.dev/content"
"""On a Secret: salted hash of the credential that Leasegate wrote."""
