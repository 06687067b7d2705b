"""``python -m cli.kubectl_vault``."""

from cli.kubectl_vault.commands import main

main()
