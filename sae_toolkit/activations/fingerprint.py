"""What a model computes on a fixed probe, kept with every SAE: it is compared whenever the SAE meets a model again."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_toolkit.activations.hooks import parse_hook
from sae_toolkit.activations.language_model import CENTRED, LanguageModel, largest_mean
from sae_toolkit.seeding import generator_for

N_SKETCH = 4
"""Numbers kept of each activation vector."""
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
"""How far two sketches of the same weights may lie apart, relative to their norm."""
RAW_MEAN = 3 * CENTRED
"""With a |mean over d| above this share of the root mean square at some token, activations were not centred."""
MAY_DIFFER = ("weights", "dtype", "context_length")


def take_fingerprint(model: LanguageModel, hook: str, *, context_length: int) -> dict[str, Any]:
    """JSON-ready: who the model is, and 4 fixed random projections of its activations at 64 fixed tokens.

    `context_length` is that of the text the SAE is trained on; it is recorded, the probe does not depend on it.
    """
    activations = model.capture(model.probe(), [hook])[hook].flatten(0, 1).cpu().double()
    if not activations.isfinite().all():
        raise ValueError(
            f"take_fingerprint: {model.name} gives NaN or infinity at {hook} in {model.dtype}. Load it in float32, or "
            "check its weights."
        )
    return {
        "name": model.name,
        "weights_sha256": model.weights_sha256,
        "hook": hook,
        "dtype": str(model.dtype).removeprefix("torch."),
        "context_length": context_length,
        "d": activations.shape[1],
        "sketch": [six_digits(value) for value in sketch(activations).flatten().tolist()],
        "rms_norm": six_digits(float(activations.square().sum(-1).mean().sqrt())),
        "largest_mean": six_digits(largest_mean(activations)),
    }


def check_fingerprint(
    saved: Mapping[str, Any],
    model: LanguageModel,
    hook: str,
    *,
    context_length: int,
    allow: Collection[str] = (),
) -> None:
    """Refuses, with the likely cause, a model that does not compute what the saved fingerprint says.

    Activations decide, not names: the same weights elsewhere pass. `allow` lets through what is meant to differ:
    "weights" (a finetuned model), "dtype", "context_length".
    """
    for name in allow:
        if name not in MAY_DIFFER:
            raise ValueError(f"check_fingerprint: allow={name!r} given. Choose from {', '.join(MAY_DIFFER)}.")
    if saved["hook"] != hook:
        raise ValueError(f"check_fingerprint: the SAE reads {saved['hook']}, not {hook}. Attach it there.")
    new = take_fingerprint(model, hook, context_length=context_length)
    check_activations(saved, new, allow)
    for field in ("dtype", "context_length"):
        if saved[field] != new[field] and field not in allow:
            raise ValueError(
                f"check_fingerprint: the SAE was trained with {field}={saved[field]}, {new[field]} given. Use "
                f"{saved[field]}, or pass allow=({field!r},) if the difference is meant."
            )


def check_activations(saved: Mapping[str, Any], new: Mapping[str, Any], allow: Collection[str]) -> None:
    """Compares the sketches; where they differ, names what differs most likely."""
    if saved["d"] != new["d"]:
        raise ValueError(f"check_fingerprint: the SAE reads vectors of d={saved['d']}, {new['name']} has {new['d']}.")
    before, after = (torch.tensor(fingerprint["sketch"], dtype=torch.float64) for fingerprint in (saved, new))
    tolerance = max(TOLERANCE[saved["dtype"]], TOLERANCE[new["dtype"]])
    if float((after - before).norm()) <= tolerance * float(before.norm()):
        return
    refuse_centred(saved, new)
    factor = float((before @ after) / before.square().sum())
    if float((after - factor * before).norm()) <= tolerance * float(after.norm()):
        raise ValueError(
            f"check_fingerprint: the activations of {new['name']} are {factor:.4g} times those the SAE was trained "
            "on. Give the model's activations as they are, unscaled."
        )
    if "weights" in allow:
        return
    raise ValueError(
        f"check_fingerprint: {new['name']} has other weights than the model the SAE was trained on: "
        f"{saved['name']} (sha256 {saved['weights_sha256'][:12]}) then, {new['name']} "
        f"(sha256 {new['weights_sha256'][:12]}) now. Load {saved['name']}, or pass allow=('weights',) if it is meant "
        "(a finetuned model)."
    )


def refuse_centred(saved: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Says so when one side's activations have mean 0 over d and the other's do not."""
    if parse_hook(new["hook"]).kind == "mlp.hook_post":
        return
    if new["largest_mean"] < CENTRED and saved["largest_mean"] > RAW_MEAN:
        raise ValueError(
            f"check_fingerprint: the activations of {new['name']} are centred (mean 0 over d), the SAE was trained on "
            "raw ones. Load the model without centred weights (no compatibility mode, no process_weights)."
        )
    if saved["largest_mean"] < CENTRED and new["largest_mean"] > RAW_MEAN:
        raise ValueError(
            f"check_fingerprint: the SAE was trained on centred activations (mean 0 over d), those of {new['name']} "
            "are raw. Train the SAE on raw activations."
        )


def sketch(activations: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """Fixed Gaussian projections: vectors that differ anywhere differ here."""
    d = activations.shape[1]
    directions = torch.randn(d, N_SKETCH, generator=generator_for(0, "fingerprint sketch"), dtype=torch.float64)
    projected: Tensor = activations.double() @ directions / d**0.5
    return projected


def six_digits(value: float) -> float:
    """Rounded to 6 significant digits: more would differ between machines."""
    return float(f"{value:.6g}")
