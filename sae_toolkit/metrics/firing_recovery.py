"""Which features have a latent that fires with them, where it is known what fires but not along which direction."""

import torch
from jaxtyping import Float64
from torch import Tensor

from sae_toolkit.activations.source import ActivationBatch, ActivationSource, KnownFeatures
from sae_toolkit.metrics.bootstrap import mean_score
from sae_toolkit.metrics.co_firing import Column, KeptSamples
from sae_toolkit.metrics.detection import Levels, samples_between, shuffled_matching
from sae_toolkit.metrics.firing_matching import FiringMatching, match_by_firing
from sae_toolkit.metrics.merging import TELLS
from sae_toolkit.metrics.metric import Metric
from sae_toolkit.metrics.score import Score
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput

FIRING_SAMPLES = 50_000
FOUND_F1 = 0.8


class FiringRecovery(Metric):
    """The best detector of each feature (`DetectorSearch`), in the first 50,000 samples, judged on their second half.

    `firing_f1`, `firing_auroc`: means over features of the detector's F1 at its tuned threshold and of its AUROC; 0 and
    1/2 where no latent fires with the feature. `firing_f1_shuffled`: F1 with the detector of another feature, the
    honest zero of `firing_f1`. `firing_recall_at_0.8`: share of features with F1 >= .8. `firing_missed_rate`: share of
    features with AUROC <= .7. Features silent in either half are left out. Intervals: bootstrap over features.
    """

    @classmethod
    def for_source(cls, source: ActivationSource) -> list[Metric]:
        return [cls()] if source.feature_names is not None and not isinstance(source, KnownFeatures) else []

    def __init__(self) -> None:
        self.kept = KeptSamples(FIRING_SAMPLES)

    def update(self, batch: ActivationBatch, output: SAEOutput) -> None:
        self.kept.update(batch, output)

    def compute(self, sae: AbstractDictionary) -> dict[str, Score]:
        del sae
        features, latents = self.kept.feature_columns(), self.kept.latent_columns()
        found = match_by_firing(features, latents, self.kept.n_samples)
        shuffled = shuffled_f1(found, features, latents, self.kept.n_samples)
        judged = found.f1[~found.f1.isnan()]
        ranked = found.auroc[~found.auroc.isnan()]
        return {
            "firing_f1": mean_score(found.f1, id="firing_f1/v1"),
            "firing_f1_shuffled": mean_score(shuffled, id="firing_f1_shuffled/v1"),
            "firing_auroc": mean_score(found.auroc, id="firing_auroc/v1"),
            f"firing_recall_at_{FOUND_F1}": mean_score(
                (judged >= FOUND_F1).double(), id=f"firing_recall_at_{FOUND_F1}/v1"
            ),
            "firing_missed_rate": mean_score((ranked <= TELLS).double(), id="firing_missed_rate/v1"),
        }


def shuffled_f1(
    found: FiringMatching, features: list[Column], latents: list[Column], n_samples: int
) -> Float64[Tensor, " n_features"]:
    """F1 on the second half of each feature against the latent, at its threshold, of the feature half the list away."""
    start = n_samples // 2
    f1 = torch.where(found.f1.isnan(), torch.nan, 0.0).double()
    other = shuffled_matching(torch.arange(len(features)))
    latent, threshold = found.latent[other], found.threshold[other]
    for i in ((latent >= 0) & ~f1.isnan()).nonzero()[:, 0].tolist():
        detector, feature = (samples_between(c, start, n_samples) for c in (latents[int(latent[i])], features[i]))
        f1[i] = Levels(detector, feature, n_samples - start).f1_over(float(threshold[i]))
    return f1
