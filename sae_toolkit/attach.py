"""Putting a trained SAE back on its model, refused where the activations are not those it was trained on."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sae_toolkit.activations.fingerprint import check_fingerprint
from sae_toolkit.activations.language_model import LanguageModel
from sae_toolkit.checkpoint import load, read_provenance
from sae_toolkit.saes.base import AbstractSAE


def attach(
    path_or_hub_id: str | Path,
    model: LanguageModel,
    *,
    context_length: int | None = None,
    hook: str | None = None,
    allow: Collection[str] = (),
) -> AbstractSAE:
    """The SAE, once the model is found to give the activations it was trained on.

    `hook` and `context_length` are those you mean to use it with; left out, those of its training. `allow` names
    differences you accept: "context_length", "dtype" or "weights". Any other mismatch is a ValueError that says the
    likely cause.
    """
    fingerprint = saved_fingerprint(path_or_hub_id)
    check_fingerprint(
        fingerprint,
        model,
        fingerprint["hook"] if hook is None else hook,
        context_length=fingerprint["context_length"] if context_length is None else context_length,
        allow=allow,
    )
    return load(path_or_hub_id).to(model.device)


def saved_fingerprint(path_or_hub_id: str | Path) -> Mapping[str, Any]:
    """What the SAE's training noted about its activations."""
    folder, provenance = read_provenance(path_or_hub_id)
    setup = provenance.get("setup", {})
    source = setup.get("source", {})
    fingerprints = source.get("of", source).get("fingerprints", {})  # a cache tells the source it was made of
    if not fingerprints:
        raise ValueError(
            f"attach: {folder} was not trained on a language model (its source is {source.get('name', 'unknown')!r}), "
            "so it belongs to no hook. Use load."
        )
    if len(fingerprints) == 1:
        return dict(next(iter(fingerprints.values())))
    site = setup["sites"][folder.name]
    if not isinstance(site, str):
        raise ValueError(f"attach: {folder} reads {', '.join(site)} together, and attaching is to one hook. Use load.")
    return dict(fingerprints[site])
