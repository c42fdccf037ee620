"""FastPLMs at a commit of its repository: its ESM-2, whose kernels take padding out inside."""

from virnucpro_monitor.models.weight_files import hugging_face_settings
from virnucpro_monitor.models.weight_names import HUGGING_FACE
from virnucpro_monitor.models.weights import load_checkpoint
from virnucpro_monitor.runner.adapters import LoadRequest
from virnucpro_monitor.runner.encoders.hf_esm import HfEsm, load_named
from virnucpro_monitor.runner.encoders.packages import import_needed, in_front


class FastPlmsAdapter:
    """Loads a `FAST_ESM_ENCODER` with the weights of a fair-esm checkpoint.

    Args:
        attention: its own name of the attention to use.
    """

    def __init__(self, attention: str = "sdpa") -> None:
        self._attention = attention

    def load(self, request: LoadRequest) -> HfEsm:
        in_front(request.checkout / "src")
        theirs = import_needed("fastplms", "fastplms.models.esm2.modeling_fastesm")
        source, _ = load_checkpoint(request.model_name, request.checkpoint)
        settings = theirs.FastEsmConfig(
            **hugging_face_settings(source), attn_backend=self._attention
        )
        model = theirs.FAST_ESM_ENCODER(settings, add_pooling_layer=False)
        load_named(model, source, HUGGING_FACE)
        return HfEsm(model, source, request, way="padded", backend=f"{self._attention}-padded")
