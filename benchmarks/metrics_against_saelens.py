"""Our `saelens_*` scores beside SAELens' own functions on the same SAE and the same samples.

Runs in the environment of `toy_against_saelens.py`; prints both and the largest difference.
"""

import torch
from sae_lens.synthetic.evals import (
    compute_classification_metrics,
    feature_uniqueness,
    mean_correlation_coefficient,
)

from sae_toolkit import SuperpositionSource, TopKSAE, TrainConfig, evaluate, train
from sae_toolkit.ground_truth import dataset_b

N_SAMPLES = 10_000


def main() -> None:
    source = SuperpositionSource(dataset_b(0))
    sae = TopKSAE(TopKSAE.Config(d_in=64, d_sae=300, k=8))
    train(sae, source, TrainConfig(n_samples=100_000))
    ours = evaluate(sae, source, n_samples=N_SAMPLES, batch_size=1000)["sae"]
    stream = source.stream(1000, seed=0, split="eval")
    batches = [next(stream) for _ in range(N_SAMPLES // 1000)]
    with torch.no_grad():
        latents = torch.cat([sae.encode(batch.activations) for batch in batches])
        truth = torch.cat([batch.coefficients.to_dense() for batch in batches])
        decoder = sae.decoder_directions()
        classified = compute_classification_metrics(latents, truth, decoder, source.directions)
        theirs = {
            "saelens_mcc": mean_correlation_coefficient(decoder, source.directions),
            "saelens_uniqueness": feature_uniqueness(decoder, source.directions),
            "saelens_precision": classified.precision,
            "saelens_recall": classified.recall,
            "saelens_f1": classified.f1_score,
        }
    for name, value in theirs.items():
        mine = ours[name].value
        print(f"{name:<20} ours {mine:.8f}  theirs {value:.8f}  difference {abs(mine - value):.1e}")


if __name__ == "__main__":
    main()
