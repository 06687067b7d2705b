"""Leasegate's programs, installed under this one package.

The wheel has every package of the repository (services, watcher, cli, deploy.vault and the generated leasegate stubs)
inside this folder, so that an installation adds no other top-level name: ``leasegate`` stays free for the client
library. In the repository the folder has the console scripts alone.
"""

__version__ = "0.1.0"
