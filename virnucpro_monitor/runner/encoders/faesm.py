"""FAESM: `EsmModel` with flash-attn, or with PyTorch's attention where that is not installed."""

import torch

from virnucpro_monitor.models.weight_files import hugging_face_settings
from virnucpro_monitor.models.weight_names import HUGGING_FACE
from virnucpro_monitor.models.weights import load_checkpoint
from virnucpro_monitor.runner.adapters import LoadRequest
from virnucpro_monitor.runner.encoders.hf_esm import HfEsm, load_named
from virnucpro_monitor.runner.encoders.packages import import_needed


class FaesmAdapter:
    """Loads an `FAEsmModel` with the weights of a fair-esm checkpoint."""

    def load(self, request: LoadRequest) -> HfEsm:
        faesm = import_needed("faesm", "faesm.esm")
        from transformers import EsmConfig

        source, _ = load_checkpoint(request.model_name, request.checkpoint)
        # flash-attn itself is for GPUs alone, and for half precision.
        fast = bool(faesm.flash_attn_installed) and request.device != "cpu"
        settings = EsmConfig(**hugging_face_settings(source), use_fa=fast)
        return HfEsm(
            load_named(faesm.FAEsmModel(settings, add_pooling_layer=False), source, HUGGING_FACE),
            source,
            request,
            way="padded",
            backend="flash-attn" if fast else "sdpa-padded",
            mask_dtype=torch.bool,
        )
