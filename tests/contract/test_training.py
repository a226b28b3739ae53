"""Every variant: training is a pure function of its config, and being watched or saved never changes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import VARIANTS, ToySource, small_config, toy_batch, working_sae

from sae_toolkit import (
    AbstractSAE,
    Checkpoints,
    LearningConfig,
    RevivalConfig,
    TrainConfig,
    TrainingSignals,
    train,
    weights_sha256,
)

each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.__name__)
LEARNING = LearningConfig(revival=RevivalConfig(dead_after_samples=64, resample_every_samples=160))
CONFIG = TrainConfig(n_samples=640, batch_size=32, learning=LEARNING, preparation_samples=128)


def trained(variant: type[AbstractSAE], *, seed: int = 0, config: TrainConfig = CONFIG, **options: Any) -> AbstractSAE:
    sae = variant(small_config(variant), seed=seed)
    train(sae, ToySource(), config, **options)
    return sae


@each_variant
def test_training_lowers_the_loss(variant: type[AbstractSAE]) -> None:
    records: list[dict[str, Any]] = []
    trained(variant, config=TrainConfig(n_samples=16_000, batch_size=100), log=records.append, log_every_steps=1)
    mse = [record["saes"]["sae"]["mse"] for record in records]
    assert sum(mse[-10:]) < 0.7 * sum(mse[:10])


@each_variant
def test_same_seed_same_hash(variant: type[AbstractSAE]) -> None:
    assert weights_sha256(trained(variant)) == weights_sha256(trained(variant))


@each_variant
def test_another_initialisation_seed_gives_another_hash(variant: type[AbstractSAE]) -> None:
    assert weights_sha256(trained(variant)) != weights_sha256(trained(variant, seed=1))


@each_variant
def test_the_global_generator_has_no_influence(variant: type[AbstractSAE]) -> None:
    before = torch.get_rng_state()
    expected = weights_sha256(trained(variant))
    try:
        torch.manual_seed(123)
        assert weights_sha256(trained(variant)) == expected
    finally:
        torch.set_rng_state(before)


def test_saes_that_share_a_pass_are_those_trained_alone() -> None:
    """Different variants, seeds, widths and learning rates side by side, bit for bit."""

    def build() -> dict[str, AbstractSAE]:
        return {
            f"{variant.__name__}{i}": variant(small_config(variant, d_sae=16 + 3 * i), seed=i)
            for variant in VARIANTS
            for i in range(2)
        }

    together = build()
    learning = {name: LearningConfig(learning_rate=0.002 * (i + 1)) for i, name in enumerate(together) if i % 2}
    train(together, ToySource(), CONFIG, learning=learning)
    for name, sae in build().items():
        train({name: sae}, ToySource(), CONFIG, learning={name: learning[name]} if name in learning else None)
        assert weights_sha256(sae) == weights_sha256(together[name]), name


@each_variant
@pytest.mark.parametrize("cadence", [1, 1000])
def test_watching_and_saving_change_no_weight(variant: type[AbstractSAE], cadence: int, tmp_path: Path) -> None:
    def probe(saes: Mapping[str, AbstractSAE]) -> dict[str, dict[str, float]]:
        assert not any(sae.training for sae in saes.values())
        return {name: {"norm": sae(toy_batch(8)).reconstruction.norm().item()} for name, sae in saes.items()}

    records: list[dict[str, Any]] = []
    watched = trained(
        variant,
        log=records.append,
        log_every_steps=cadence,
        probe=probe,
        probe_every_steps=cadence,
        checkpoints=Checkpoints(tmp_path, every_samples=32 * cadence, keep=1),
    )
    assert weights_sha256(watched) == weights_sha256(trained(variant))
    assert records[-1]["probe"]["sae"]["norm"] > 0


@each_variant
def test_a_logger_that_always_raises_warns_once_and_changes_nothing(variant: type[AbstractSAE]) -> None:
    def log(record: dict[str, Any]) -> None:
        raise RuntimeError("disk gone")

    with pytest.warns(UserWarning, match="disk gone") as caught:
        sae = trained(variant, log=log, log_every_steps=1)
    assert len(caught) == 1
    assert weights_sha256(sae) == weights_sha256(trained(variant))


@each_variant
def test_a_probe_that_always_raises_warns_once_and_changes_nothing(variant: type[AbstractSAE]) -> None:
    def probe(saes: Mapping[str, AbstractSAE]) -> dict[str, dict[str, float]]:
        raise RuntimeError("no metric")

    records: list[dict[str, Any]] = []
    with pytest.warns(UserWarning, match="no metric") as caught:
        sae = trained(variant, log=records.append, log_every_steps=1, probe=probe, probe_every_steps=1)
    assert len(caught) == 1
    assert len(records) == CONFIG.n_steps
    assert weights_sha256(sae) == weights_sha256(trained(variant))


@each_variant
def test_decoder_rows_are_units_in_every_checkpoint(variant: type[AbstractSAE], tmp_path: Path) -> None:
    if not variant.unit_norm_decoder:
        pytest.skip("this variant lets its decoder norms free")
    lengths = []

    class Keeper(Checkpoints):
        def save(self, snapshot: Any, saes: Any) -> Path:
            lengths.append(snapshot.weights["sae"]["W_dec"].norm(dim=1))
            return super().save(snapshot, saes)

    trained(variant, checkpoints=Keeper(tmp_path, every_samples=32))
    assert len(lengths) == CONFIG.n_steps + 1
    assert (torch.stack(lengths) - 1).abs().max() <= 1e-6


@each_variant
def test_the_loss_does_not_depend_on_batch_size(variant: type[AbstractSAE]) -> None:
    """The same samples twice in one batch give the same mean loss."""
    sae, x = working_sae(variant).train(), toy_batch(64)
    signals = TrainingSignals(dead=torch.arange(16) % 2 == 0, sparsity_weight=torch.tensor(0.7))
    once = sae.loss_terms(x, sae(x), signals)
    twice = sae.loss_terms(x.repeat(2, 1), sae(x.repeat(2, 1)), signals)
    for name, term in once.items():
        torch.testing.assert_close(twice[name], term, rtol=1e-5, atol=0, msg=name)


@each_variant
def test_every_parameter_gets_a_finite_gradient(variant: type[AbstractSAE]) -> None:
    sae, x = working_sae(variant).train(), toy_batch(64)
    signals = TrainingSignals(dead=torch.arange(16) % 2 == 0, sparsity_weight=torch.tensor(0.7))
    torch.stack(list(sae.loss_terms(x, sae(x), signals).values())).sum().backward()
    for name, parameter in sae.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@each_variant
def test_training_ends_in_eval_mode_and_ready_to_encode(variant: type[AbstractSAE]) -> None:
    sae = trained(variant)
    assert not sae.training
    assert torch.isfinite(sae.encode(toy_batch(4))).all()


@each_variant
def test_l0_in_training_and_at_inference_agree(variant: type[AbstractSAE]) -> None:
    """Within 5 %, on samples never trained on (the SAE at the end of its run, in both modes)."""
    sae = trained(variant, config=TrainConfig(n_samples=64_000, batch_size=400))
    x = next(ToySource().stream(20_000, seed=3, split="eval")).activations
    inference = (sae.encode(x) != 0).sum().item()
    assert inference == pytest.approx((sae.train().encode(x) != 0).sum().item(), rel=0.05)
