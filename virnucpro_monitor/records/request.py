"""How a run's model is asked for."""

from dataclasses import dataclass

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records.runs import Configuration

DTYPES = ("float32", "float16", "bfloat16")
NAMED_WEIGHTS = ("official", "synthetic", "synthetic-outliers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """How the model is to be run. `weights` is one of `NAMED_WEIGHTS` or a path."""

    model: str
    weights: str
    device: str = "cpu"
    dtype: str = "float32"
    backend: str = "auto"
    token_budget: int = 4096

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigurationError(
                f"{self.dtype!r} is not a dtype: use one of {', '.join(DTYPES)}."
            )

    def asks_for(self, used: Configuration) -> bool:
        """Whether a run under `used` is of this series, whatever its weights and backend."""
        return (
            used.model == self.model
            and used.dtype == self.dtype
            and used.device == self.device.partition(":")[0]
            and used.token_budget == self.token_budget
        )
