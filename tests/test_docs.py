"""What the documents promise: every score is defined, and the README's example runs as printed."""

import re
from pathlib import Path

import pytest
from fake_splicing import FakeSplicingSource
from tiny_models import loaded, tiny_text_file
from toy import ToySource, small_config

from sae_toolkit import SuperpositionSource, TopKSAE
from sae_toolkit.activations import Text, TextConfig, TransformerSource
from sae_toolkit.ground_truth import hierarchical_world
from sae_toolkit.metrics import (
    ByGroup,
    ContextSimilarity,
    LabelSelectivity,
    SparseProbing,
    TokenConcentration,
    evaluate,
)

ROOT = Path(__file__).parent.parent


def test_every_score_is_defined_in_the_documents() -> None:
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    world = hierarchical_world(0, n_parents=3, n_independent=3, d_in=8)
    sae = TopKSAE(small_config(TopKSAE)).eval()
    names = set(evaluate(sae, SuperpositionSource(world), n_samples=200)["sae"])
    names |= set(evaluate(sae, ToySource(), n_samples=200)["sae"])
    model = FakeSplicingSource(("early",))
    at_early = TopKSAE(TopKSAE.Config(d_in=model.d_in, d_sae=8, k=2)).eval()
    names |= set(evaluate(at_early, model, n_samples=200)["sae"])
    assert len(names) > 40
    defined = {re.sub(r"_at_[\d.]+$", "_at_t", name) for name in names}
    assert {name for name in defined if f"`{name}`" not in text} == set()


def test_every_score_by_labels_is_defined_in_the_documents() -> None:
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    model = loaded("tiny")
    rows = Text.read(model.tokenizer, TextConfig(path=str(tiny_text_file()), context_length=16, eval_share=0.3))
    source = TransformerSource(model, rows, TransformerSource.Config(hooks=("blocks.1.hook_resid_pre",)))
    kinds = (LabelSelectivity, TokenConcentration, ContextSimilarity, SparseProbing, ByGroup)
    sae = TopKSAE(TopKSAE.Config(d_in=source.d_in, d_sae=32, k=4)).eval()
    names = set(
        evaluate(
            sae,
            source,
            n_samples=1500,
            metrics=lambda: [metric for kind in kinds for metric in kind.for_source(source)],
        )["sae"]
    )
    assert len(names) > 100
    general = {
        r"^(explained_variance|l0)_.*": r"\1_G",
        r"(?<!same)_(token_class|first_letter|linguistic|position|document|token)(?=$|_(top|shuffled|given|k\d))": "_L",
        r"_k\d$": "_k1",
    }
    for pattern, letter in general.items():
        names = {re.sub(pattern, letter, name, count=1) for name in names}
    assert {name for name in names if f"`{name}`" not in text} == set()


@pytest.mark.slow
def test_the_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert block is not None
    names: dict[str, object] = {}
    exec(block.group(1), names)
    assert tuple(names["latents"].shape) == (8, 256)  # type: ignore[attr-defined]
    assert names["scores"]["mean_matched_cosine"].value > 0.8  # type: ignore[index]
