"""A dictionary's record as Neuronpedia gives features: a list of what `GET /api/feature/MODEL/SOURCE/INDEX` answers.

That answer has "the feature's activations, explanations, logits, and density" (Neuronpedia's documentation, API); the
names of its fields are the columns of its tables, which jbloomAus/SAEDashboard lists as `Feature` and `Activation` in
`neuronpedia_export.py` (commit 3ea1249, 2026). A source is called LAYER-SET there, such as 6-res-jb. Identities, dates,
explanations and vectors are left out: a record has none. `correlated_features_*` stay empty: Neuronpedia means Pearson
correlations there, which is not what "fires together with" says.
"""

from pathlib import Path
from typing import Any

from sae_toolkit.analysis.latent_record import DictionaryRecord, Example, LatentRecord
from sae_toolkit.report.saedashboard_json import (
    UNNAMED,
    ExportNames,
    feature_fields,
    finite,
    token_values,
    values_of,
    write_json,
)

NEAREST = "nearest by decoder"
"""Title of the related list that becomes `topkCosSim*`."""


def write_neuronpedia_json(record: DictionaryRecord, path: str | Path, names: ExportNames = UNNAMED) -> Path:
    """Writes the list of features; returns the path."""
    return write_json(neuronpedia_features(record, names), path)


def neuronpedia_features(record: DictionaryRecord, names: ExportNames = UNNAMED) -> list[dict[str, Any]]:
    """The features as plain JSON values."""
    whose = {"modelId": names.model_id, "layer": source_id(names), "sourceSetName": names.sae_set}
    told = {key: value for key, value in whose.items() if value is not None}
    return [{**told, **neuronpedia_feature(latent, told)} for latent in record.latents]


def source_id(names: ExportNames) -> str | None:
    """Such as 6-res-jb; None where a part of it is not known."""
    return None if names.layer is None or names.sae_set is None else f"{names.layer}-{names.sae_set}"


def neuronpedia_feature(latent: LatentRecord, told: dict[str, Any]) -> dict[str, Any]:
    """One feature with its activations; the nearest features begin with itself, as Neuronpedia's do."""
    nearest = latent.related.get(NEAREST, ())
    itself = ([latent.latent], [1.0]) if nearest else ([], [])
    place = {key: told[key] for key in ("modelId", "layer") if key in told} | {"index": str(latent.latent)}
    return {
        "index": str(latent.latent),
        "maxActApprox": finite(latent.max_activation),
        **feature_fields(latent),
        "topkCosSimIndices": itself[0] + [near.index for near in nearest],
        "topkCosSimValues": itself[1] + values_of(nearest),
        "activations": [{**place, **neuronpedia_activation(example)} for example in latent.examples if example.tokens],
    }


def neuronpedia_activation(example: Example) -> dict[str, Any]:
    """One row of `Activation`."""
    values = token_values(example)
    highest = max(range(len(values)), key=values.__getitem__)
    return {
        "tokens": list(example.tokens),
        "values": values,
        "maxValue": values[highest],
        "maxValueTokenIndex": highest,
        "minValue": min(values),
        "qualifyingTokenIndex": example.peak,
    }
