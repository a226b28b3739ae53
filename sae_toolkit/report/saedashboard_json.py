"""A dictionary's record as SAEDashboard writes it: one batch of features, its `batch-0.json`.

Field names and meanings follow jbloomAus/SAEDashboard: `NeuronpediaDashboardBatch`, `NeuronpediaDashboardFeature` and
`NeuronpediaDashboardActivation` of `neuronpedia_dashboard.py` (commit 234ea32, 2025), what `neuronpedia_converter.py`
puts into them, and what `neuronpedia_export.py` (commit 3ea1249, 2026) reads on the way to Neuronpedia. Lists that it
reads and that a record lacks are empty, as SAEDashboard leaves them when a table was not asked for; the prompts
and data set of its own runner are left out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from sae_toolkit.analysis.latent_record import DictionaryRecord, Example, LatentRecord, Neighbour
from sae_toolkit.atomic_write import atomic_write_text

PROMOTED, SUPPRESSED, NEURONS = "promoted tokens", "suppressed tokens", "correlated neurons"
"""Titles of related lists that both formats have a place for."""
NOT_IN_A_RECORD = (
    "neuron_alignment_indices",
    "neuron_alignment_values",
    "neuron_alignment_l1",
    "correlated_neurons_l1",
    "correlated_features_indices",
    "correlated_features_l1",
    "correlated_features_pearson",
    "logits_hist_data_bar_heights",
    "logits_hist_data_bar_values",
    "decoder_weights_dist",
)
TOP_BIN = -1.0
"""What stands for the lower end, and for the share, of the strongest activations, which are no interval."""


@dataclass(frozen=True, kw_only=True)
class ExportNames:
    """What the other tool calls model and SAE; what is not given is left out."""

    model_id: str | None = None
    """Such as gpt2-small."""
    layer: int | None = None
    """Number of the layer, from 0."""
    sae_set: str | None = None
    """Name of the set of SAEs, such as res-jb."""


UNNAMED = ExportNames()


def write_saedashboard_json(record: DictionaryRecord, path: str | Path, names: ExportNames = UNNAMED) -> Path:
    """Writes the batch; returns the path."""
    return write_json(saedashboard_batch(record, names), path)


def saedashboard_batch(record: DictionaryRecord, names: ExportNames = UNNAMED) -> dict[str, Any]:
    """The batch as plain JSON values."""
    told = {"model_id": names.model_id, "layer": names.layer, "sae_set": names.sae_set}
    return {
        **{key: value for key, value in told.items() if value is not None},
        "features": [dashboard_feature(latent) for latent in record.latents],
    }


def dashboard_feature(latent: LatentRecord) -> dict[str, Any]:
    """One `NeuronpediaDashboardFeature`."""
    activations = [dashboard_activation(example, latent) for example in latent.examples if example.tokens]
    return {"feature_index": latent.latent, **feature_fields(latent), "activations": activations}


def feature_fields(latent: LatentRecord) -> dict[str, Any]:
    """What SAEDashboard and Neuronpedia call by the same names; a histogram's bar stands at the middle of its bin."""
    promoted, suppressed, neurons = (latent.related.get(title, ()) for title in (PROMOTED, SUPPRESSED, NEURONS))
    edges = latent.histogram.edges if latent.histogram else ()
    return {
        **{name: [] for name in NOT_IN_A_RECORD},
        "pos_str": [near.label for near in promoted],
        "pos_values": values_of(promoted),
        "neg_str": [near.label for near in suppressed],
        "neg_values": values_of(suppressed),
        "correlated_neurons_indices": [near.index for near in neurons],
        "correlated_neurons_pearson": values_of(neurons),
        "frac_nonzero": finite(latent.density),
        "freq_hist_data_bar_values": [finite((low + high) / 2) for low, high in pairwise(edges)],
        "freq_hist_data_bar_heights": list(latent.histogram.counts) if latent.histogram else [],
    }


def dashboard_activation(example: Example, latent: LatentRecord) -> dict[str, Any]:
    """One `NeuronpediaDashboardActivation`.

    The bin of the strongest is -1 to the maximum. Other bands are known by their quantiles and not by their ends, so
    they get the three zeros that SAEDashboard gives to a group it cannot place.
    """
    is_top = example.band == "top"
    return {
        "bin_min": TOP_BIN if is_top else 0.0,
        "bin_max": finite(latent.max_activation) if is_top else 0.0,
        "bin_contains": TOP_BIN if is_top else 0.0,
        "tokens": list(example.tokens),
        "values": token_values(example),
        "qualifying_token_index": example.peak,
    }


def token_values(example: Example) -> list[float]:
    """Activations as both formats have them, where tokens that were left out count as 0."""
    return [finite(value) for value in example.activations]


def values_of(nearby: Sequence[Neighbour]) -> list[float]:
    """Their cosines, correlations or logits."""
    return [finite(near.value) for near in nearby]


def finite(value: float) -> float:
    """Rounded to three decimals, or to three digits where it is small; 0 for what is not finite."""
    if not isfinite(value):
        return 0.0
    return round(float(value), 3) if abs(value) >= 1 else float(f"{value:.3g}")


def write_json(content: Any, path: str | Path) -> Path:
    """Compact JSON, whole or not at all."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    atomic_write_text(Path(path), text + "\n")
    return Path(path)
