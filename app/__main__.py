"""Streamlit's own command line, with the app's modules already imported: `python -m app run …`.

Streamlit imports an app when its first reader arrives, who would wait a second for it.
"""

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
    main(prog_name="streamlit")
