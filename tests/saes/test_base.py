"""The registry and the shared construction of variants."""

import inspect

import pytest
import torch
from toy import VARIANTS, gaussian, small_config

from sae_toolkit import AbstractSAE, SAEOutput, saes


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_final_and_exported(variant: type[AbstractSAE]) -> None:
    assert variant.__bases__ == (AbstractSAE,)
    assert not variant.__subclasses__()
    assert getattr(saes, variant.__name__) is variant


def test_an_abstract_class_is_not_registered() -> None:
    assert not any(inspect.isabstract(variant) for variant in AbstractSAE.variants.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_those_of_the_field(variant: type[AbstractSAE]) -> None:
    sae = variant(small_config(variant))
    shapes = {name: tuple(parameter.shape) for name, parameter in sae.named_parameters()}
    encoder = {"W_enc": (8, 16), "b_enc": (16,)}
    assert shapes.items() >= {"W_dec": (16, 8), "b_dec": (8,)}.items()
    if variant.tied_encoder:
        assert not shapes.keys() & encoder.keys()
    else:
        assert shapes.items() >= encoder.items()
    assert {"W_enc": tuple(sae.W_enc.shape), "b_enc": tuple(sae.b_enc.shape)} == encoder
    learned = {"W_dec"} if variant.tied_encoder else {"W_dec", *encoder}
    assert learned <= variant.latent_axes.keys() <= shapes.keys()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.full((16,), variant.initial_decoder_norm))
    if not sae.transcodes:  # which reads elsewhere than it writes
        torch.testing.assert_close(sae.W_enc, sae.W_dec.T)


def test_both_forms_of_latents_are_each_other() -> None:
    dense = gaussian(3, 5).relu()
    out = SAEOutput(torch.zeros(3, 2), dense)
    assert torch.equal(out.dense_latents(), dense)
    assert torch.equal(out.sparse_latents().to_dense(), dense)
