"""Where `virnucpro-monitor` begins: what measures starts before the command line is imported."""

import sys

from virnucpro_monitor.bytecode import keep_own_bytecode


def main() -> None:
    keep_own_bytecode()
    from virnucpro_monitor.monitor.starting import begun_early

    with begun_early(sys.argv[1:]):
        from virnucpro_monitor.cli.main import main

        main()
