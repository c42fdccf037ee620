"""The last line of a traceback comes first, and frames of the monitor are folded."""

from virnucpro_monitor.report.tracebacks import fold_traceback

TEXT = """Traceback (most recent call last):
  File "/x/site-packages/virnucpro_monitor/runner/worker.py", line 120, in _judge
    subject = adapter.load(request)
              ^^^^^^^^^^^^^^^^^^^^^
  File "/x/site-packages/virnucpro_monitor/runner/adapters.py", line 161, in _import_module
    return importlib.import_module(name)
  File "/usr/lib/python3.11/importlib/__init__.py", line 126, in import_module
    return _bootstrap._gcd_import(name[level:])
  File "<frozen importlib._bootstrap>", line 1204, in _gcd_import
  File "/checkout/fastpack/model.py", line 3, in <module>
    from fastpack.rest import missing
ModuleNotFoundError: No module named 'fastpack.rest'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/checkout/fastpack/__init__.py", line 1, in <module>
    import fastpack.model
  File "/x/virnucpro_monitor/models/esm2_flash.py", line 9, in load
    raise ImportError("no model")
ImportError: no model
"""


def test_own_frames_are_folded_and_the_others_kept() -> None:
    found = fold_traceback(TEXT)
    assert found.last_line == "ImportError: no model"
    assert found.num_folded == 4
    assert found.text.splitlines() == [
        "Traceback (most recent call last):",
        "  … 4 frames of the monitor",
        '  File "/checkout/fastpack/model.py", line 3, in <module>',
        "    from fastpack.rest import missing",
        "ModuleNotFoundError: No module named 'fastpack.rest'",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "Traceback (most recent call last):",
        '  File "/checkout/fastpack/__init__.py", line 1, in <module>',
        "    import fastpack.model",
        # What is measured may be this package's own model: its frames say what broke.
        '  File "/x/virnucpro_monitor/models/esm2_flash.py", line 9, in load',
        '    raise ImportError("no model")',
        "ImportError: no model",
    ]


def test_a_traceback_of_own_frames_alone_keeps_its_last_line() -> None:
    text = '  File "/x/virnucpro_monitor/runner/server.py", line 9, in run\n    go()\nOSError: gone'
    found = fold_traceback(f"Traceback (most recent call last):\n{text}\n")
    assert found.text.splitlines()[1:] == ["  … 1 frame of the monitor", "OSError: gone"]


def test_other_text_stays_as_it_is() -> None:
    assert fold_traceback("").last_line == ""
    assert fold_traceback("killed by signal 9\n").text == "killed by signal 9"


def test_the_module_of_an_error_of_our_own_is_left_out() -> None:
    text = "virnucpro_monitor.runner.adapters.TargetImportError: pack cannot be imported"
    assert fold_traceback(text).last_line == "TargetImportError: pack cannot be imported"
    assert fold_traceback("pack.errors.Broken: no").last_line == "pack.errors.Broken: no"
