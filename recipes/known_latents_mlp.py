"""What the last MLP of a transformer writes, on a language whose latents are known: which variables are found there.

The same questions as `known_latents_residual`, at the output of the last MLP instead of the residual stream: what an
MLP adds is not all that is known by then, so the supervised probe is the ceiling to read the scores against. Values
are found better by k-means (F1 .76, probe .68) than by TopK with 2 or 4 active latents (.45, .35), all else by TopK.

Replacing this output by its mean costs the model less than 0.05 nats, so "loss recovered" has no answer here.

    sae-toolkit run known_latents_mlp --output runs/known_mlp
"""

from dataclasses import dataclass

from sae_toolkit import AbstractSAE, LearningConfig, TopKSAE, TrainConfig, train
from sae_toolkit.activations import KnownLatentsSource, ModelConfig, TransformerSource, load_known_latents
from sae_toolkit.metrics import probe_by_variable, score_with_controls, with_controls
from sae_toolkit.report import Expectation, Report, build_report
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """The shipped model or another of `train_known_latents`, one TopK SAE for each sparsity."""

    model: ModelConfig = ModelConfig(name=None, device="cpu")
    """A folder that `train_known_latents` wrote; name None: the one that is shipped."""
    documents: KnownLatentsSource.Config = KnownLatentsSource.Config()
    """What the model reads."""
    activations: TransformerSource.Config = TransformerSource.Config(hooks=("blocks.1.hook_mlp_out",))
    """Where SAEs read it."""
    k: tuple[int, ...] = (2, 4)
    """Active latents of each SAE."""
    d_sae: int = 256
    """Latents of each SAE."""
    train: TrainConfig = TrainConfig(n_samples=1_000_000, batch_size=512, learning=LearningConfig(learning_rate=5e-2))
    """Budget, learning and the seed of everything."""
    eval_samples: int = 50_000
    """Held-out tokens behind every score."""
    loss_tokens: int = 8_192
    """Held-out tokens on which the model runs with each SAE and each control spliced in."""


LEAVE_OUT = ("floor/ica",)
SMOKE = Config(
    documents=KnownLatentsSource.Config(n_documents=1_600, families=("value", "tone", "number", "slot")),
    k=(4,),
    train=TrainConfig(n_samples=100_000, batch_size=256, learning=LearningConfig(learning_rate=3e-2)),
    eval_samples=8_000,
    loss_tokens=1_000,
)


def make_source(config: Config, run: RunFolder) -> KnownLatentsSource:
    """The model, reading its language."""
    return load_known_latents(config.model, config.activations, config.documents)


def make_saes(config: Config, source: KnownLatentsSource) -> dict[str, AbstractSAE]:
    """One SAE of every sparsity."""
    size = {"d_in": source.d_in, "d_sae": config.d_sae}
    return {f"TopK k={k}": TopKSAE(TopKSAE.Config(**size, k=k), seed=config.train.seed) for k in config.k}


def main(config: Config, run: RunFolder) -> Report:
    """Trains, scores beside controls, and asks a supervised probe the same."""
    source = make_source(config, run)
    saes = make_saes(config, source)
    result = train(saes, source, config.train, **run.training())
    ladder = score_with_controls(
        saes,
        source,
        n_samples=config.eval_samples,
        seed=config.train.seed,
        leave_out=LEAVE_OUT,
        loss_tokens=config.loss_tokens,
    )
    probe = probe_by_variable(source)
    ladder = with_controls(ladder, {"ceiling/linear probe": probe}, ceiling=probe)
    return build_report(config, run, saes, source, ladder, excluded=result.excluded)


EXPECTED = (Expectation(score="variable_f1_value_shuffled", sae="TopK k=2", at_most=0.01),)
SMOKE_EXPECTED = (
    Expectation(score="explained_variance", sae="TopK k=4", at_least=0.5),
    Expectation(score="variable_f1_value_shuffled", sae="TopK k=4", at_most=0.02),
)
