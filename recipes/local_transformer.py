"""Any language model in a folder on any text in files, offline: the same SAEs, controls and scores as everywhere else.

Without a model and a text, both are made up: a tiny GPT-2 with random weights reads generated sentences. Its numbers
say what the architecture alone gives. To compare your model with its own random weights: --model.reinitialise_seed 0.

    sae-toolkit run local_transformer --output runs/mine --model.name ./my_model --text.path stories.json \
        --activations.hooks blocks.2.hook_resid_post --offline
"""

from dataclasses import dataclass

from sae_toolkit import AbstractSAE, BatchTopKSAE, TopKSAE, TrainConfig, train
from sae_toolkit.activations import CachedSource, ModelConfig, Text, TextConfig, TransformerSource, load_model
from sae_toolkit.activations.example_language import with_examples
from sae_toolkit.metrics import score_with_controls
from sae_toolkit.report import Expectation, Report, build_report
from sae_toolkit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config:
    """A model folder, text files, TopK and BatchTopK SAEs."""

    model: ModelConfig = ModelConfig(name=None)
    """The language model: a hub name or a folder; name None: a tiny random one, written into the run's folder."""
    text: TextConfig = TextConfig(path=None)
    """What it reads: a hub data set or local files; path None: generated sentences, written into the run's folder."""
    activations: TransformerSource.Config = TransformerSource.Config(hooks=("blocks.1.hook_resid_post",))
    """Where it is read, and which tokens count."""
    cache: str | None = None
    """Train from these stored activations (made by `sae-toolkit cache build`) instead of the live model."""
    k: tuple[int, ...] = (8, 16)
    """Active latents of each SAE."""
    d_sae: int = 512
    """Latents of each SAE."""
    train: TrainConfig = TrainConfig(n_samples=1_000_000)
    """Budget, learning and the seed of everything."""
    eval_samples: int = 20_000
    """Held-out tokens behind every score, or all there are."""
    loss_tokens: int = 8_192
    """Held-out tokens on which the model runs with each SAE and each control spliced in."""


LEAVE_OUT = ("floor/ica",)
SMOKE = Config(
    model=ModelConfig(name=None),
    text=TextConfig(path=None, context_length=32),
    activations=TransformerSource.Config(hooks=("blocks.0.hook_resid_post",), shuffle_buffer="8192 tokens"),
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
    result = train(saes, stored, config.train, **run.training())
    ladder = score_with_controls(
        saes,
        source,
        n_samples=config.eval_samples,
        seed=config.train.seed,
        leave_out=LEAVE_OUT,
        loss_tokens=config.loss_tokens,
    )
    return build_report(config, run, saes, source, ladder, excluded=result.excluded)


EXPECTED = (Expectation(score="explained_variance", sae="TopK k=8", at_least=0.5),)
SMOKE_EXPECTED = (Expectation(score="explained_variance", sae="TopK k=4", at_least=0.5),)
