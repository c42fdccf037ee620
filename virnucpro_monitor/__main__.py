"""`python -m virnucpro_monitor`."""

from virnucpro_monitor.cli.start import main

if __name__ == "__main__":
    main()
