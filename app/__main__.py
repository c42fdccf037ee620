"""Streamlit's own command line, with the app's modules already imported: `python -m app run …`.

Streamlit imports an app when its first reader arrives, who would wait a second for it.
"""

import gc
import sys

import click
from streamlit.web.cli import main

import app.views.benchmarks
import app.views.compare
import app.views.health
import app.views.incidents
import app.views.overview
import app.views.regressions
import app.views.run
import app.views.sequence  # noqa: F401

if __name__ == "__main__":
    # What is imported stays, and a page makes ten thousands of records that hold no cycles: the
    # collector need not look at the first, nor often at the others.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    try:
        main(prog_name="streamlit", standalone_mode=False)
    except click.Abort:  # by Ctrl-C, of which the command that started us tells
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
