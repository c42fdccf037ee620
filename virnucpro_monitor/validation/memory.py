"""Out of memory on the GPU: halve the packs, go on, and say so in the verdict."""

from collections.abc import Callable
from dataclasses import replace

import torch

from virnucpro_monitor.data.limits import MAX_RESIDUES, SPECIAL_TOKENS
from virnucpro_monitor.records import MemoryDocument, Verdict, to_json
from virnucpro_monitor.validation.subject import Subject

SMALLEST_BUDGET = MAX_RESIDUES + SPECIAL_TOKENS
"""Tokens of one sequence of full length, BOS and EOS included: no pack can be smaller."""


def halving_packs(subject: Subject, validate: Callable[[], Verdict]) -> Verdict:
    """Call `validate`; each time the device is out of memory, halve the packs and call it again.

    Args:
        subject: its `token_budget` is what is halved.

    Returns:
        The verdict. Where packs were halved its document "memory" and its reason say so.

    Raises:
        torch.OutOfMemoryError: the subject's packs cannot be made smaller.
    """
    asked = subject.token_budget
    budget = asked
    while True:
        try:
            verdict = validate()
            break
        except torch.OutOfMemoryError:
            if budget // 2 < SMALLEST_BUDGET:
                raise
        # Outside the handler: the exception holds on to the tensors of the failed attempt.
        budget //= 2
        subject.token_budget = budget
        if subject.device.type == "cuda":
            torch.cuda.empty_cache()
    if budget == asked:
        return verdict
    document = MemoryDocument(asked_tokens=asked, used_tokens=budget)
    return replace(
        verdict,
        reason=f"{verdict.reason} Out of memory with packs of {asked:,} tokens, measured with "
        f"{budget:,}.",
        documents={**verdict.documents, "memory": to_json(document)},
    )
