"""Every variant with every normaliser: inference treats each row alone, whatever the leading dimensions."""

import pytest
import torch
from toy import D_IN, D_SAE, NORMALISERS, VARIANTS, toy_batch, working_sae

from sae_toolkit import AbstractSAE

every_sae = pytest.mark.parametrize(
    ("variant", "normaliser"),
    [(variant, normaliser) for variant in VARIANTS for normaliser in NORMALISERS],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)


@every_sae
def test_each_row_is_encoded_alone(variant: type[AbstractSAE], normaliser: str) -> None:
    sae, x = working_sae(variant, normaliser=normaliser), toy_batch(64)
    alone = torch.cat([sae.encode(x[i : i + 1]) for i in range(64)])
    assert (sae.encode(x) - alone).abs().max() <= 1e-6 * alone.abs().max().clamp_min(1)
    assert torch.equal(sae.encode(x) != 0, alone != 0)


@every_sae
def test_each_row_of_the_calibration_data_is_encoded_alone(variant: type[AbstractSAE], normaliser: str) -> None:
    """Harder than other data: a threshold taken from one of these values must not sit exactly on it."""
    sae = working_sae(variant, normaliser=normaliser)
    x = toy_batch(256, seed=7)
    sae.calibrate_([x])
    alone = torch.cat([sae.encode(row) for row in x.split(1)])
    assert torch.equal(sae.encode(x) != 0, alone != 0)


@every_sae
@pytest.mark.parametrize("leading", [(), (1,), (6,), (2, 3), (3, 1, 2)], ids=str)
def test_leading_dimensions_are_kept(variant: type[AbstractSAE], normaliser: str, leading: tuple[int, ...]) -> None:
    sae, x = working_sae(variant, normaliser=normaliser), toy_batch(6)
    n = torch.Size(leading).numel()
    flat = sae.encode(x[:n])
    shaped = sae.encode(x[:n].reshape(*leading, D_IN))
    assert shaped.shape == (*leading, D_SAE)
    torch.testing.assert_close(shaped.reshape(n, D_SAE), flat, atol=1e-6, rtol=1e-6)
    out = sae(x[:n].reshape(*leading, D_IN))
    assert out.reconstruction.shape == (*leading, D_IN)
    torch.testing.assert_close(out.reconstruction.reshape(n, D_IN), sae(x[:n]).reconstruction, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(out.dense_latents().reshape(n, D_SAE), flat, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(out.sparse_latents().to_dense().reshape(n, D_SAE), flat, atol=1e-6, rtol=1e-6)


@every_sae
@pytest.mark.parametrize("leading", [(0,), (0, 3), (2, 0)], ids=str)
def test_an_empty_batch_gives_empty_results(
    variant: type[AbstractSAE], normaliser: str, leading: tuple[int, ...]
) -> None:
    sae = working_sae(variant, normaliser=normaliser)
    out = sae(torch.zeros(*leading, D_IN))
    assert out.reconstruction.shape == (*leading, D_IN)
    assert out.dense_latents().shape == (*leading, D_SAE)
    assert out.sparse_latents().values.numel() == 0


@every_sae
def test_decode_of_encode_is_forward(variant: type[AbstractSAE], normaliser: str) -> None:
    sae, x = working_sae(variant, normaliser=normaliser), toy_batch(32)
    torch.testing.assert_close(sae.decode(sae.encode(x)) + sae.bypass(x), sae(x).reconstruction, atol=1e-5, rtol=1e-5)


@every_sae
def test_decoding_is_a_sum_of_decoder_directions(variant: type[AbstractSAE], normaliser: str) -> None:
    sae, x = working_sae(variant, normaliser=normaliser), toy_batch(32)
    silent = sae.decode(torch.zeros(1, D_SAE))
    expected = silent + sae.encode(x) @ sae.decoder_directions() + sae.bypass(x)
    torch.testing.assert_close(sae(x).reconstruction, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_activations_of_any_precision_give_float32_latents(variant: type[AbstractSAE], dtype: torch.dtype) -> None:
    sae, x = working_sae(variant), toy_batch(16).to(dtype)
    assert sae.encode(x).dtype == torch.float32
    torch.testing.assert_close(sae.encode(x), sae.encode(x.float()))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", ["encode", "decode", "forward"])
def test_a_wrong_width_names_what_was_given_and_needed(variant: type[AbstractSAE], method: str) -> None:
    with pytest.raises(ValueError, match=r"shape \(4, 5\) given.*d_in=8"):
        getattr(working_sae(variant), method)(torch.zeros(4, 5))


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_mode_changes_nothing_about_the_form_of_latents(variant: type[AbstractSAE]) -> None:
    sae, x = working_sae(variant), toy_batch(16)
    assert type(sae(x).latent_acts) is type(sae.train()(x).latent_acts)
