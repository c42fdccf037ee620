"""Where `virnucpro-monitor` begins: what measures starts before the command line is imported."""

import sys

from virnucpro_monitor.monitor.starting import begun_early


def main() -> None:
    with begun_early(sys.argv[1:]):
        from virnucpro_monitor.cli.main import main

        main()
