from pathlib import Path

import pytest
import torch

from sae_toolkit import Checkpoints, TopKCrosscoder, TopKSAE, TrainConfig, save, train
from sae_toolkit.activations import ModelConfig, Text, TextConfig, TransformerSource, load_model
from sae_toolkit.activations.example_language import write_example_model, write_example_text
from sae_toolkit.attach import attach

HOOKS = ("blocks.0.hook_resid_post", "blocks.1.hook_mlp_out")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, another one, and a run with an SAE at each of two hooks of the first."""
    made = tmp_path_factory.mktemp("attach")
    write_example_model(made / "model")
    write_example_model(made / "other", seed=1)
    text = write_example_text(made, n_documents=60)
    model = load_model(ModelConfig(name=str(made / "model"), device="cpu"))
    packed = Text.read(model.tokenizer, TextConfig(path=str(text), context_length=16))
    source = TransformerSource(model, packed, TransformerSource.Config(hooks=HOOKS, shuffle_buffer="2048 tokens"))
    saes = {hook: TopKSAE(TopKSAE.Config(d_in=32, d_sae=16, k=2)) for hook in HOOKS}
    config = TrainConfig(n_samples=300, batch_size=100, preparation_samples=100)
    train(saes, source, config, sites={hook: hook for hook in HOOKS}, checkpoints=Checkpoints(made / "run"))
    save(saes[HOOKS[0]], made / "bare")
    return made


def sae_folder(folder: Path, hook: str) -> Path:
    return next((folder / "run").glob("step_*")) / "saes" / hook


def model_in(folder: Path, name: str = "model", **changes: str):
    return load_model(ModelConfig(name=str(folder / name), device="cpu", **changes))


@pytest.mark.parametrize("hook", HOOKS)
def test_on_its_own_model_it_is_the_saved_sae(folder: Path, hook: str) -> None:
    model = model_in(folder)
    sae = attach(sae_folder(folder, hook), model)
    x = model.capture(torch.arange(20)[None], [hook])[hook]
    assert sae(x).reconstruction.shape == x.shape
    assert sae.d_sae == 16


def test_another_model_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="weights"):
        attach(sae_folder(folder, HOOKS[0]), model_in(folder, "other"))


def test_another_hook_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="hook_mlp_out"):
        attach(sae_folder(folder, HOOKS[0]), model_in(folder), hook=HOOKS[1])


def test_another_context_length_is_refused_unless_allowed(folder: Path) -> None:
    path, model = sae_folder(folder, HOOKS[0]), model_in(folder)
    with pytest.raises(ValueError, match="context_length"):
        attach(path, model, context_length=32)
    assert attach(path, model, context_length=32, allow=("context_length",)).d_in == 32


def test_another_precision_is_refused_unless_allowed(folder: Path) -> None:
    path, model = sae_folder(folder, HOOKS[0]), model_in(folder, dtype="bfloat16")
    with pytest.raises(ValueError, match="dtype"):
        attach(path, model)
    assert attach(path, model, allow=("dtype",)).d_in == 32


def test_an_sae_of_no_model_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="not trained on a language model"):
        attach(folder / "bare", model_in(folder))


def test_what_reads_several_hooks_together_belongs_to_none(folder: Path, tmp_path: Path) -> None:
    setup = {
        "source": {"fingerprints": {"blocks.0.hook_mlp_out": {}, "blocks.1.hook_mlp_out": {}}},
        "sites": {"both": ["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"]},
    }
    crosscoder = TopKCrosscoder(TopKCrosscoder.Config(d_in=4, d_sae=8, k=2, site_widths=(2, 2)))
    save(crosscoder, tmp_path / "both", provenance={"setup": setup})
    with pytest.raises(ValueError, match=r"blocks\.0\.hook_mlp_out, blocks\.1\.hook_mlp_out together"):
        attach(tmp_path / "both", load_model(ModelConfig(name=str(folder / "model"), device="cpu")))
