"""Watch, commit by commit, that packed ESM-2 inference equals unpacked inference.

The names of `__all__` are the package's Python interface. They are imported when they are first
asked for: importing the package costs neither torch nor a database.
"""

from typing import TYPE_CHECKING

from virnucpro_monitor.late_names import late_names

if TYPE_CHECKING:
    from virnucpro_monitor.api import Monitor, open_monitor
    from virnucpro_monitor.data.packing import validate_packed_equivalence
    from virnucpro_monitor.errors import MonitorError
    from virnucpro_monitor.models.esm2_flash import load_esm2_model
    from virnucpro_monitor.monitor.bisecting import BisectOptions
    from virnucpro_monitor.monitor.running import Listener, RunOptions
    from virnucpro_monitor.records import Outcome
    from virnucpro_monitor.runner.adapters import Adapter, LoadRequest
    from virnucpro_monitor.runner.embedder import Embedder
    from virnucpro_monitor.validation.subject import PackedBatch, Subject

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "BisectOptions",
    "Embedder",
    "Listener",
    "LoadRequest",
    "Monitor",
    "MonitorError",
    "Outcome",
    "PackedBatch",
    "RunOptions",
    "Subject",
    "__version__",
    "load_esm2_model",
    "open_monitor",
    "validate_packed_equivalence",
]

_HOMES = {
    "Adapter": "runner.adapters",
    "BisectOptions": "monitor.bisecting",
    "Embedder": "runner.embedder",
    "Listener": "monitor.running",
    "LoadRequest": "runner.adapters",
    "Monitor": "api",
    "MonitorError": "errors",
    "Outcome": "records",
    "PackedBatch": "validation.subject",
    "RunOptions": "monitor.running",
    "Subject": "validation.subject",
    "load_esm2_model": "models.esm2_flash",
    "open_monitor": "api",
    "validate_packed_equivalence": "data.packing",
}

__getattr__, __dir__ = late_names(__name__, _HOMES)
