"""Residual stream of GPT-2 small: SAEs keep the model's next-token loss far better than any control dictionary.

Layer 8 (`blocks.8.hook_resid_pre`), 24,576 latents, OpenWebText in rows of 128 tokens without padding. Position 0 and
special tokens stay in the model's input and are left out of training and of every score.

    sae-toolkit run gpt2_residual --output runs/gpt2_residual
    sae-toolkit run gpt2_residual --output runs/books --model.name ./my_gpt2 --text.path "books/*.txt" --offline
"""

from dataclasses import dataclass

from sae_toolkit import AbstractSAE, BatchTopKSAE, LearningConfig, RevivalConfig, TopKSAE, TrainConfig, train
from sae_toolkit.activations import CachedSource, ModelConfig, Text, TextConfig, TransformerSource, load_model
from sae_toolkit.activations.example_language import with_examples
from sae_toolkit.metrics import score_with_controls
from sae_toolkit.report import Expectation, Report, build_report
from sae_toolkit.run_folder import RunFolder

REVIVAL = RevivalConfig(dead_after_samples=10_000_000)


@dataclass(frozen=True, kw_only=True)
class Config:
    """GPT-2 small on OpenWebText, TopK and BatchTopK SAEs."""

    model: ModelConfig = ModelConfig(name="gpt2")
    """The language model: a hub name or a folder; name None: a tiny random one, written into the run's folder."""
    text: TextConfig = TextConfig(path="Skylion007/openwebtext@refs/convert/parquet")
    """What it reads: a hub data set or local files; path None: generated sentences, written into the run's folder."""
    activations: TransformerSource.Config = TransformerSource.Config(
        hooks=("blocks.8.hook_resid_pre",), shuffle_buffer="2 GB"
    )
    """Where it is read, and which tokens count."""
    cache: str | None = None
    """Train from these stored activations (made by `sae-toolkit cache build`) instead of the live model."""
    k: tuple[int, ...] = (32,)
    """Active latents of each SAE."""
    d_sae: int = 24_576
    """Latents of each SAE."""
    train: TrainConfig = TrainConfig(
        n_samples=300_000_000,
        batch_size=4096,
        learning=LearningConfig(learning_rate=3e-4, warmup_steps=1000, revival=REVIVAL),
        preparation_samples=65_536,
    )
    """Budget, learning and the seed of everything."""
    eval_samples: int = 20_000
    """Held-out tokens behind every score, or all there are."""
    loss_tokens: int = 8_192
    """Held-out tokens on which the model runs with each SAE and each control spliced in."""


LEAVE_OUT = ("floor/ica", "floor/kmeans")
SMOKE = Config(
    model=ModelConfig(name=None),
    text=TextConfig(path=None, context_length=32),
    activations=TransformerSource.Config(hooks=("blocks.1.hook_resid_pre",), shuffle_buffer="8192 tokens"),
    k=(4,),
    d_sae=64,
    train=TrainConfig(n_samples=60_000, batch_size=256, preparation_samples=4_096),
    eval_samples=2_000,
    loss_tokens=1_000,
)


def make_source(config: Config, run: RunFolder) -> TransformerSource:
    """The model, reading the text."""
    model_config, text_config = with_examples(config.model, config.text, run.folder)
    model = load_model(model_config)
    return TransformerSource(model, Text.read(model.tokenizer, text_config), config.activations)


def make_saes(config: Config, source: TransformerSource) -> dict[str, AbstractSAE]:
    """A TopK and a BatchTopK SAE of every sparsity."""
    saes: dict[str, AbstractSAE] = {}
    for k in config.k:
        size = {"d_in": source.d_in, "d_sae": config.d_sae, "k": k}
        saes[f"TopK k={k}"] = TopKSAE(TopKSAE.Config(**size), seed=config.train.seed)
        saes[f"BatchTopK k={k}"] = BatchTopKSAE(BatchTopKSAE.Config(**size), seed=config.train.seed)
    return {name: sae.to(source.model.device) for name, sae in saes.items()}


def main(config: Config, run: RunFolder) -> Report:
    """Trains in one pass over the text, live or from a cache; scores on held-out documents, in the model itself."""
    source = make_source(config, run)
    saes = make_saes(config, source)
    stored = source if config.cache is None else CachedSource.of(source, config.cache)
    result = train(saes, stored, config.train, **run.training(checkpoint_every_samples=20_000_000))
    ladder = score_with_controls(
        saes,
        source,
        n_samples=config.eval_samples,
        seed=config.train.seed,
        leave_out=LEAVE_OUT,
        loss_tokens=config.loss_tokens,
    )
    return build_report(config, run, saes, source, ladder, excluded=result.excluded)


EXPECTED = ()  # GPT-2 and OpenWebText have not been run here, so nothing is promised for them
SMOKE_EXPECTED = (
    Expectation(score="explained_variance", sae="TopK k=4", at_least=0.5),
    Expectation(score="l0", sae="TopK k=4", at_least=3.5, at_most=4.0),
    Expectation(score="ce_clean", sae="TopK k=4", at_least=1.0),
)
