"""One layer of attention learns the known language's skip-trigrams, and its weights say which: 64 of 64 by OV.

Elhage et al. 2021 ("A Mathematical Framework for Transformer Circuits", one-layer transformers): "kindled ... lamp ->
bright" is a head that lets "lamp" attend to "kindled" (QK) and raises "bright" where it does (OV). Every such trigram
of the language is known. What all heads write for a verb, added up, names its value for all 64 (seeds 0, 1, 4, 5), as
does the same weighted with attention, sum_h f1_h f2_h. It does because heads are dropped in training: with all heads
always there the sum names .95, .91, .89, .91, .83, .94 (seeds 0 to 5, 2,000 steps), and in the best head .75 to 1.00 of
the things look for their own verbs (now all). A head that never looks at a verb has no gradient for what it would write
there, and keeps what it was drawn with. Not cured by W_O from zero (.89), nor by weight decay on W_V and W_O (.84;
stronger: .48), on W_Q and W_K (.91; all of seed 1) or everywhere (.88); small weights (0.02) learn tables that tell the
values of one thing apart and no more (.52), the thing being known from the direct path. A constant share of dropped
heads (.1, .25) left one thing's verbs behind in 2 of 10 runs of 2,000 steps (.94), one that falls from .3 to 0 in none
of 6 (.98 to 1.00). Values said right: .9993 to .9997; after 2,000 steps .9984 to .9997, without dropped heads .9990 to
.9997. 2026-11.

Also: the sum over paths is what the model computes; random heads neither copy nor anti-copy; and the error that one
head must make with two trigrams of one source (log 2 nats), and two heads need not.

    sae-toolkit run skip_trigrams --output runs/trigrams
"""

from dataclasses import dataclass

import torch

from sae_toolkit.activations import (
    SMALL_ATTENTION,
    AttentionOnly,
    AttentionTrainConfig,
    new_attention_only,
    planted_skip_trigrams,
    train_attention_only,
)
from sae_toolkit.activations.attention_training import held_out_documents
from sae_toolkit.analysis import (
    KnownCircuit,
    circuit_scores,
    copying_score,
    losses_by_order,
    one_head_losses,
    path_error,
    random_copying_scores,
    token_ov,
    token_qk,
)
from sae_toolkit.ground_truth import Language, LanguageCircuit
from sae_toolkit.report import (
    Expectation,
    Headline,
    NamedScore,
    Report,
    build_experiment_report,
    heat_map_panel,
    scores_of,
)
from sae_toolkit.run_folder import RunFolder
from sae_toolkit.seeding import generator_for


@dataclass(frozen=True, kw_only=True)
class Config:
    """The model, and the text whose logits are taken apart."""

    train: AttentionTrainConfig = AttentionTrainConfig()
    """Language, sizes, budget and the seed of everything."""
    expanded_documents: int = 16
    """Documents whose logits are expanded into paths."""


SMOKE = Config(
    train=SMALL_ATTENTION,
    expanded_documents=4,
)
HEADLINES = (
    Headline(name="ov_top1", label="OV", question="What share of verbs raise their own value the most?"),
    Headline(name="qk_top1", label="QK", question="What share of things look for their own verbs the most?"),
)
IN, AT, KEEP, MIND, BAY = range(1, 6)


def measure(name: str, model: AttentionOnly, circuit: LanguageCircuit) -> list[NamedScore]:
    """Circuits in the token basis, head by head, and whether the heads copy."""
    weights = model.weights()
    known, any_word = (
        KnownCircuit.of_tokens(weights, **circuit.skip_trigrams() | {"candidates": candidates})
        for candidates in (circuit.candidates, torch.arange(len(weights.W_E)))
    )
    found, wide = circuit_scores(weights, 0, known), circuit_scores(weights, 0, any_word)
    found["any word"] = wide["all heads"] | wide["trigrams"]
    rows = [row for part, scores in found.items() for row in scores_of(f"{name}, {part}", scores)]
    for head in range(weights.n_heads):
        rows += scores_of(f"{name}, head {head}", {"copying_score": copying_score(weights, 0, head)})
    return rows


def planted_bug(strength: float = 20.0) -> list[NamedScore]:
    """Two trigrams of one source in one head, and in two heads."""
    trigrams = ((KEEP, IN, MIND), (KEEP, AT, BAY))
    predicted = float(one_head_losses(torch.tensor(trigrams), strength, 6).mean())
    rows = scores_of("one head, two trigrams", {"predicted_loss": predicted})
    tokens = torch.tensor([(0, source, destination) for source, destination, _ in trigrams])
    for name, heads in {"one head, two trigrams": (trigrams,), "two heads": tuple((t,) for t in trigrams)}.items():
        logits = planted_skip_trigrams(heads, n_tokens=6, strength=strength).logits(tokens)[:, -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([MIND, BAY]))
        rows += scores_of(name, {"loss": float(loss)}, n=2)
    return rows


def main(config: Config, run: RunFolder) -> Report:
    """Trains; reads circuits; expands paths; plants the bug."""
    language = Language(config.train.language)
    circuit, trained = LanguageCircuit.of(language), train_attention_only(config.train)
    reached = {"gap": trained.loss - trained.entropy, "value_accuracy": trained.value_accuracy}
    scores = scores_of("trained", reached, n=config.train.eval_documents)
    scores += measure("trained", trained.model, circuit)
    scores += measure("untrained", new_attention_only(config.train), circuit)
    weights, tokens = trained.model.weights(), held_out_documents(config.train)[: config.expanded_documents]
    orders = {f"loss_of_order_{order}": loss for order, loss in enumerate(losses_by_order(weights, tokens))}
    scores += scores_of("paths", {"largest_error": path_error(weights, tokens), **orders}, n=len(tokens))
    copying = random_copying_scores(64, 16, 1000, generator_for(config.train.seed, "random heads"))
    scores += scores_of("random heads", {"copying_mean": float(copying.mean()), "copying_sd": float(copying.std())})
    scores += planted_bug()
    ov = token_ov(weights, 0, range(weights.n_heads)).dense()[circuit.events][:, circuit.values]
    qk = {
        f"head {h}": token_qk(weights, 0, h).dense()[circuit.things][:, circuit.events] for h in range(weights.n_heads)
    }
    figures = [
        heat_map_panel("OV", "Verbs against values, all heads.", {"OV": ov}, row_label="verb", column_label="value"),
        heat_map_panel("QK", "Which verbs a thing looks for.", qk, row_label="thing", column_label="verb"),
    ]
    return build_experiment_report(config, run, scores, figures, description=language.describe(), headlines=HEADLINES)


EXPECTED_EXACTLY = (
    Expectation(score="largest_error", sae="paths", at_most=1e-4),
    Expectation(score="copying_mean", sae="random heads", at_least=-0.03, at_most=0.03),
    Expectation(score="copying_sd", sae="random heads", at_least=0.09, at_most=0.125),
    Expectation(score="loss", sae="one head, two trigrams", at_least=0.6931, at_most=0.6932),
    Expectation(score="predicted_loss", sae="one head, two trigrams", at_least=0.6931, at_most=0.6932),
    Expectation(score="loss", sae="two heads", at_most=1e-5),
)
EXPECTED = (
    Expectation(score="value_accuracy", sae="trained", at_least=0.999),
    Expectation(score="gap", sae="trained", at_least=0.0, at_most=0.04),
    Expectation(score="skip_trigram_top1", sae="trained, trigrams", at_least=0.95),
    Expectation(score="skip_trigram_top1", sae="trained, any word", at_least=0.95),
    Expectation(score="ov_top1", sae="trained, all heads", at_least=0.95),
    Expectation(score="qk_top1", sae="trained, best head", at_least=0.85),
    Expectation(score="qk_top1", sae="trained, all heads", at_least=0.85),
    Expectation(score="qk_auroc", sae="trained, all heads", at_least=0.9),
    Expectation(score="ov_top1", sae="untrained, all heads", at_most=0.1),
    Expectation(score="skip_trigram_top1", sae="untrained, trigrams", at_most=0.1),
    Expectation(score="qk_auroc", sae="untrained, all heads", at_least=0.4, at_most=0.6),
    *EXPECTED_EXACTLY,
)
SMOKE_EXPECTED = (
    Expectation(score="skip_trigram_top1", sae="trained, trigrams", at_least=0.9),
    Expectation(score="qk_auroc", sae="trained, all heads", at_least=0.9),
    *EXPECTED_EXACTLY,
)
