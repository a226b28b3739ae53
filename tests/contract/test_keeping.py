"""Every variant with every normaliser: what is saved is what is loaded, and what is damaged never loads silently."""

from pathlib import Path

import pytest
import torch
from toy import D_IN, D_SAE, NORMALISERS, VARIANTS, ToySource, small_config, toy_batch, working_sae

from sae_toolkit import AbstractSAE, LearningConfig, RevivalConfig, TrainConfig, load, save, train, weights_sha256

each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.__name__)
each_normaliser = pytest.mark.parametrize("normaliser", NORMALISERS)
stages = pytest.mark.parametrize("stage", ["fresh", "step 0", "perturbed", "trained"])


def sae_at(stage: str, variant: type[AbstractSAE], normaliser: str) -> AbstractSAE:
    if stage == "perturbed":
        return working_sae(variant, normaliser=normaliser)
    sae = variant(small_config(variant, normaliser=normaliser))
    if stage == "step 0":
        sae.normaliser.fit_(toy_batch(64))
        sae.calibrate_([toy_batch(64)])
    if stage == "trained":
        learning = LearningConfig(warmup_steps=2, revival=RevivalConfig(dead_after_samples=64))
        train(sae, ToySource(), TrainConfig(n_samples=256, batch_size=32, preparation_samples=64, learning=learning))
    return sae


@each_variant
@each_normaliser
@stages
def test_a_saved_sae_loads_as_itself(variant: type[AbstractSAE], normaliser: str, stage: str, tmp_path: Path) -> None:
    sae = sae_at(stage, variant, normaliser)
    loaded = load(save(sae, tmp_path / "sae"))
    assert type(loaded) is variant
    assert loaded.config == sae.config
    assert weights_sha256(loaded) == weights_sha256(sae)
    assert not loaded.training
    x = toy_batch(32)
    # Training mode where a fresh SAE has nothing calibrated to encode with at inference.
    for mode in (True,) if stage == "fresh" else (True, False):
        assert (loaded.train(mode)(x).reconstruction - sae.train(mode)(x).reconstruction).abs().max() <= 1e-6


@each_variant
def test_weights_loaded_after_eval_are_used(variant: type[AbstractSAE]) -> None:
    """A peer caches its dictionary at .eval() and then ignores what is loaded into it."""
    first, second = working_sae(variant), working_sae(variant, seed=5)
    x = toy_batch(16)
    before = first.eval()(x).reconstruction
    first.load_state_dict(second.state_dict())
    assert torch.equal(first(x).reconstruction, second(x).reconstruction)
    assert not torch.equal(first(x).reconstruction, before)


@each_variant
def test_saving_changes_nothing(variant: type[AbstractSAE], tmp_path: Path) -> None:
    sae = working_sae(variant).train()
    before = weights_sha256(sae)
    save(sae, tmp_path / "sae")
    assert sae.training
    assert weights_sha256(sae) == before


@each_variant
def test_equal_saes_are_equal_bytes(variant: type[AbstractSAE], tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(working_sae(variant), tmp_path / name)
    for file in ("sae.json", "weights.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@each_variant
def test_a_cut_sae_file_never_loads(variant: type[AbstractSAE], tmp_path: Path) -> None:
    """The JSON at every length, the weights at about forty."""
    folder = save(working_sae(variant), tmp_path / "sae")
    for file, step in (("sae.json", 1), ("weights.safetensors", None)):
        whole = (folder / file).read_bytes()
        for length in range(0, len(whole), step or max(1, len(whole) // 40)):
            (folder / file).write_bytes(whole[:length])
            with pytest.raises(ValueError, match=file):
                load(folder)
        (folder / file).write_bytes(whole)
    load(folder)


@each_variant
def test_a_changed_byte_never_loads(variant: type[AbstractSAE], tmp_path: Path) -> None:
    """Every byte of the JSON (a digit of k would still parse), about a hundred of the weights."""
    folder = save(working_sae(variant), tmp_path / "sae")
    for file, step in (("sae.json", 1), ("weights.safetensors", None)):
        whole = (folder / file).read_bytes()
        for place in range(0, len(whole), step or max(1, len(whole) // 100)):
            changed = bytearray(whole)
            changed[place] ^= 1
            (folder / file).write_bytes(bytes(changed))
            with pytest.raises(ValueError, match=r"sae"):
                load(folder)
        (folder / file).write_bytes(whole)
    load(folder)


@each_variant
def test_weights_of_another_width_are_refused(variant: type[AbstractSAE], tmp_path: Path) -> None:
    """A description beside weights that do not fit it, both undamaged in themselves."""
    save(working_sae(variant), tmp_path / "narrow")
    save(working_sae(variant, d_sae=D_SAE + 1), tmp_path / "wide")
    (tmp_path / "wide" / "sae.json").write_bytes((tmp_path / "narrow" / "sae.json").read_bytes())
    with pytest.raises(ValueError, match="damaged"):
        load(tmp_path / "wide")


@each_variant
def test_impossible_sizes_are_refused(variant: type[AbstractSAE]) -> None:
    for name in ("d_in", "d_sae"):
        with pytest.raises(ValueError, match=f"{name}=0"):
            small_config(variant, **{name: 0})


@each_variant
def test_a_source_of_another_width_is_refused_before_training(variant: type[AbstractSAE]) -> None:
    sae = variant(small_config(variant, d_in=D_IN + 1))
    with pytest.raises(ValueError, match=r"d_in=9.*width 8"):
        train(sae, ToySource(), TrainConfig(n_samples=64))
