"""What an SAE lacks, split in two: its dictionary, and the one product that reads it.

With S(D, coder) a score of dictionary D under a coder and the lasso as near-exact inference: dictionary gap = S(true D,
lasso) - S(learned D, lasso); amortisation gap = S(learned D, lasso) - S(learned D, the SAE's own encoder), which no
linear encoder can close on codes that compressed sensing recovers (arXiv 2411.13117). They add up to the shortfall.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sae_toolkit.activations.source import KnownFeatures
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.detection import LatentDetection
from sae_toolkit.metrics.paired import Comparison, compare_tables, compare_units, score_units, table_of
from sae_toolkit.metrics.reconstruction import Reconstruction
from sae_toolkit.metrics.replication import Design
from sae_toolkit.metrics.score import Score
from sae_toolkit.metrics.score_units import ScoreUnits
from sae_toolkit.saes.base import AbstractDictionary, AbstractSAE
from sae_toolkit.saes.coders import Coder, NonnegativeLasso

SPLIT = ("activation_f1", "explained_variance")
"""The scores whose shortfall is split."""
LASSO = NonnegativeLasso(0.1)
"""In the units of coefficients around 1: .977 F1 and .990 of the variance with dataset A's true directions."""


class Gap(NamedTuple):
    """One score of one SAE on the way from its own encoder to perfect knowledge, unit by unit."""

    perfect: ScoreUnits
    """True directions, lasso."""
    learned: ScoreUnits
    """The SAE's directions and offset, lasso."""
    own: ScoreUnits
    """The SAE as it is."""

    def split(self) -> dict[str, Comparison]:
        """`shortfall`, `dictionary_gap` and `amortisation_gap`, intervals over features or blocks (one SAE)."""
        return {
            "shortfall": compare_units(self.perfect, self.own),
            "dictionary_gap": compare_units(self.perfect, self.learned),
            "amortisation_gap": compare_units(self.learned, self.own),
        }

    def scores(self, name: str) -> dict[str, Score]:
        """The split as scores called `<name>_shortfall` and so on."""
        return {
            f"{name}_{part}": Score(
                value=found.difference, low=found.low, high=found.high, n=found.n_units, id=f"{name}_{part}/v1"
            )
            for part, found in self.split().items()
        }


def gaps(
    saes: Mapping[str, AbstractSAE],
    source: KnownFeatures,
    *,
    n_samples: int,
    coder: Coder = LASSO,
    seed: int = 0,
) -> dict[str, dict[str, Gap]]:
    """By SAE, then by score, on the same held-out samples.

    Dead latents of an SAE take part where the coder uses them: its dictionary is judged, not its encoder's use of it.
    `coder` stands for exact inference; its penalty is in the units of the activations.
    """
    truth = FixedDictionary(source.directions, coder=coder, offset=source.bias)
    learned = {f"learned {name}": own_dictionary(sae, coder) for name, sae in saes.items()}
    own = {f"own {name}": sae for name, sae in saes.items()}
    judged: dict[str, AbstractDictionary] = {"perfect": truth, **learned, **own}
    units = score_units(
        judged,
        source,
        n_samples=n_samples,
        seed=seed,
        metrics=lambda: [Reconstruction(), LatentDetection(source.directions)],
    )
    return {
        name: {
            score: Gap(units["perfect"][score], units[f"learned {name}"][score], units[f"own {name}"][score])
            for score in SPLIT
        }
        for name in saes
    }


def split_over_seeds(found: Sequence[Gap], *, design: Design) -> dict[str, Comparison]:
    """`Gap.split` of one variant over at least three seeds."""
    perfect, learned, own = (table_of([gap[part] for gap in found]) for part in range(3))
    id = found[0].own.id
    return {
        "shortfall": compare_tables(perfect, own, design=design, id=id),
        "dictionary_gap": compare_tables(perfect, learned, design=design, id=id),
        "amortisation_gap": compare_tables(learned, own, design=design, id=id),
    }


def own_dictionary(sae: AbstractSAE, coder: Coder) -> FixedDictionary:
    """The SAE's directions and offset under another coder, in raw units like the true ones: one penalty serves both."""
    offset = sae.normaliser.denormalise(sae.b_dec).detach().cpu()
    return FixedDictionary(sae.decoder_directions().detach().cpu(), coder=coder, offset=offset)
