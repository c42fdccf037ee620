"""A small git repository with the seed's interface, and ways to break it."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

PACKAGE = "tinytarget"
_MODEL = '''
"""ESM-2 by fair-esm, packed by padding."""

import esm
import torch


class ESM2WithFlashAttention(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model.eval()
        self.attention_impl = "padded"

    def forward(self, tokens, repr_layers=None):
        return self.model(tokens, repr_layers=repr_layers)

    def forward_packed(self, input_ids, cu_seqlens, max_seqlen, repr_layers=None):
        bounds = cu_seqlens.tolist()
        places = list(enumerate(zip(bounds, bounds[1:])))
        padded = torch.full((len(places), max_seqlen), PADDING, dtype=torch.long)
        for row, (start, end) in places:
            padded[row, : end - start] = input_ids[start:end]
        output = self.model(padded, repr_layers=repr_layers)["representations"]
        return {
            "representations": {
                layer: torch.cat([x[row, : end - start] for row, (start, end) in places])
                for layer, x in output.items()
            }
        }


PADDING = 1


def load_esm2_model(model_name="esm2_t6_8M_UR50D", device="cpu"):
    model, alphabet = esm.pretrained.load_model_and_alphabet(model_name)
    return ESM2WithFlashAttention(model).to(device), alphabet.get_batch_converter()
'''
_COLLATOR = '''
"""Packs as many sequences as fit, and keeps the rest for flush()."""

import torch


class VarlenCollator:
    def __init__(self, batch_converter, max_tokens_per_batch=4096):
        self.batch_converter = batch_converter
        self.budget = max_tokens_per_batch
        self.waiting = []

    def __call__(self, batch):
        self.waiting += batch
        return self._next()

    def _next(self):
        chosen, used = [], 0
        while self.waiting and used + len(self.waiting[0]["sequence"]) + 2 <= self.budget:
            chosen.append(self.waiting.pop(0))
            used += len(chosen[-1]["sequence"]) + 2
        if not chosen:
            return {}
        parts = [
            self.batch_converter([(item["id"], item["sequence"])])[2][0] for item in chosen
        ]
        lengths = torch.tensor([0] + [len(part) for part in parts])
        return {
            "input_ids": torch.cat(parts),
            "cu_seqlens": lengths.cumsum(0).to(torch.int32),
            "max_seqlen": int(lengths.max()),
            "sequence_ids": [item["id"] for item in chosen],
            "num_sequences": len(chosen),
        }

    def flush(self):
        packs = []
        while pack := self._next():
            packs.append(pack)
        return packs
'''
MODEL_FILE = f"{PACKAGE}/models/esm2_flash.py"
COLLATOR_FILE = f"{PACKAGE}/data/collators.py"
HEALTHY = {
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/models/__init__.py": "",
    MODEL_FILE: _MODEL,
    f"{PACKAGE}/data/__init__.py": "",
    COLLATOR_FILE: _COLLATOR,
}
# A commit that says that it runs, and waits to be ended. It may write in its checkout alone.
WAITS = "import time\nopen('begun.note', 'w').close()\ntime.sleep(600)\n"
PADDED_WITH_CLS = _MODEL.replace("PADDING = 1", "PADDING = 0")


def begun_notes(cache_folder: Path) -> list[Path]:
    """What commits that `WAITS` have left. Checkouts may come and go meanwhile."""
    walk = os.walk(cache_folder)  # passes over a folder that is gone, which glob does not
    return [Path(folder, "begun.note") for folder, _, files in walk if "begun.note" in files]


def has_begun(cache_folder: Path) -> bool:
    """Whether a commit that `WAITS` runs now."""
    return bool(begun_notes(cache_folder))


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}\n"


class TinyRepository:
    """A repository in `folder`, written commit by commit with fixed dates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_commits = 0
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, given: str | None = None) -> str:
        moment = f"{1_780_000_000 + 60 * self.num_commits} +0000"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "GIT_AUTHOR_NAME": "A. Author",
            "GIT_AUTHOR_EMAIL": "author@example.org",
            "GIT_COMMITTER_NAME": "A. Author",
            "GIT_COMMITTER_EMAIL": "author@example.org",
            "GIT_AUTHOR_DATE": moment,
            "GIT_COMMITTER_DATE": moment,
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        done = subprocess.run(
            ["git", "-C", str(self.folder), *arguments],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            input=given,
        )
        return done.stdout.strip()

    def commit(self, files: dict[str, str] | None = None, subject: str = "") -> str:
        """Write files, commit everything and return the hash."""
        for name, text in (files or {}).items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git(
            "commit", "--quiet", "--allow-empty", "-m", subject or f"Commit {self.num_commits}"
        )
        self.num_commits += 1
        return self.git("rev-parse", "HEAD")

    def commit_all(self, steps: Sequence[dict[str, str]]) -> list[str]:
        """`commit` for each of many steps, in one process of git."""
        parts = []
        for files in steps:
            moment = f"A. Author <author@example.org> {1_780_000_000 + 60 * self.num_commits} +0000"
            parts.append("commit refs/heads/main\n")
            parts.append(f"author {moment}\ncommitter {moment}\n")
            parts.append(_data(f"Commit {self.num_commits}\n"))
            parts += [f"M 100644 inline {name}\n{_data(text)}" for name, text in files.items()]
            self.num_commits += 1
        self.git("fast-import", "--quiet", given="".join(parts))
        self.git("reset", "--quiet", "--hard")
        return self.git("rev-list", "--reverse", "HEAD").splitlines()[-len(steps) :]
