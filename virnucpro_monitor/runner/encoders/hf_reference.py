"""Embed sequences with a Hugging Face model in FP32, alone and on the CPU: an oracle.

Run in an environment of its own, with a JSON object on standard input:

    model    name of the ESM-2 of a fair-esm checkpoint at `place`; empty where `place` is a model
             of Hugging Face's format, by its folder
    texts    residues of each sequence
    folder   where NUMBER.npy is written for each: [residues, D] float32

or, to have a model of the hub on this machine and print where, with these:

    fetch     its name there
    revision  the commit
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


def main() -> None:
    job = json.load(sys.stdin)
    if "fetch" in job:
        from huggingface_hub import snapshot_download

        others = ["*.h5", "*.msgpack", "*.ot", "onnx/*"]  # weights of other frameworks
        asked = {"revision": job["revision"], "ignore_patterns": others}
        sys.stdout.write(f"{snapshot_download(job['fetch'], **asked)}\n")
        return
    embed = _own(job["model"], Path(job["place"])) if job["model"] else _named(job["place"])
    with torch.inference_mode():
        for number, text in enumerate(job["texts"]):
            rows = embed(text)
            if len(rows) != len(text):
                sys.exit(f"{job['place']} gives {len(rows)} rows for {len(text)} residues.")
            np.save(Path(job["folder"]) / f"{number}.npy", rows.float().numpy())


def _own(model_name: str, checkpoint: Path) -> Callable[[str], torch.Tensor]:
    """The run's own ESM-2 weights in `EsmModel`."""
    from virnucpro_monitor.models.weights import load_checkpoint
    from virnucpro_monitor.runner.encoders.hf_esm import hf_esm_model
    from virnucpro_monitor.validation.tokens import encode

    source, _ = load_checkpoint(model_name, checkpoint)
    model = hf_esm_model(source, attention="eager").float().eval()

    def embed(text: str) -> torch.Tensor:
        ids = encode(text)[None]
        rows: torch.Tensor = model(ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return rows[0, 1:-1]

    return embed


def _named(place: str) -> Callable[[str], torch.Tensor]:
    """A model with its own tokens; special ones are left out."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(place)
    model: Any = AutoModel.from_pretrained(place).float().eval()

    def embed(text: str) -> torch.Tensor:
        given = tokenizer(text, return_tensors="pt", return_special_tokens_mask=True)
        special = given.pop("special_tokens_mask")[0].bool()
        rows: torch.Tensor = model(**given).last_hidden_state[0]
        return rows[~special]

    return embed


if __name__ == "__main__":
    main()
