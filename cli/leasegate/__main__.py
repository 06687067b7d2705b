"""``python -m cli.leasegate``."""

from cli.leasegate.commands import main

main()
