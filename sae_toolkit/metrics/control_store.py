"""Controls kept on disk, found again by what they were made of, so that floors are not computed twice."""

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from math import nan
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from sae_toolkit.atomic_write import atomic_write_bytes, atomic_write_text
from sae_toolkit.metrics.score import Score


class ControlStore:
    """A folder of directions and scores. What something is made of is its name: another sample, another file.

    Scores are also keyed by the version of the toolkit. A file that cannot be read is an error, not a reason to compute
    anew: delete the folder, it holds nothing that cannot be made again.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def directions(self, made_of: Mapping[str, Any], build: Callable[[], Tensor]) -> Float[Tensor, "_ d_in"]:
        """The kept ones, or those that `build` gives."""
        path = self.folder / f"directions_{key_of(made_of)}.safetensors"
        if path.exists():
            return tensors_from_bytes(path.read_bytes())["directions"]
        built = build().contiguous()
        atomic_write_bytes(path, tensors_to_bytes({"directions": built}))
        return built

    def scores(self, made_of: Mapping[str, Any]) -> dict[str, Score] | None:
        """The kept scores of one dictionary, None where there are none."""
        path = self.scores_path(made_of)
        if not path.exists():
            return None
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))["scores"]
        except ValueError as error:
            raise ValueError(f"ControlStore: {path} is damaged ({error}). Delete it: it can be made again.") from error
        return {name: Score(**{**e, "value": nan if e["value"] is None else e["value"]}) for name, e in entries.items()}

    def keep_scores(self, made_of: Mapping[str, Any], scores: Mapping[str, Score]) -> None:
        """Writes the scores of one dictionary, whole or not at all."""
        content = {"made_of": dict(made_of), "scores": {name: score.to_json() for name, score in scores.items()}}
        atomic_write_text(self.scores_path(made_of), json.dumps(content, indent=1) + "\n")

    def scores_path(self, made_of: Mapping[str, Any]) -> Path:
        return self.folder / f"scores_{key_of({**made_of, 'sae_toolkit': version('sae-toolkit')})}.json"


def key_of(made_of: Mapping[str, Any]) -> str:
    """A short name for a JSON-ready description."""
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:24]
