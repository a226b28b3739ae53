import json
import math
import shutil

import pytest
import torch
from tiny_models import tiny_model, tiny_model_folder

from sae_toolkit.activations.example_language import write_example_model
from sae_toolkit.activations.fingerprint import check_fingerprint, sketch, take_fingerprint
from sae_toolkit.activations.model_loading import ModelConfig, load_model

HOOK = "blocks.1.hook_resid_post"


def load(folder=None, **changes):
    name = str(tiny_model_folder() if folder is None else folder)
    return load_model(ModelConfig(name=name, device="cpu", **changes), offline=True)


def saved(model=None, hook=HOOK):
    """As it comes back from a checkpoint."""
    model = tiny_model() if model is None else model
    return json.loads(json.dumps(take_fingerprint(model, hook, context_length=32)))


def check(fingerprint, model, hook=HOOK, *, context_length=32, allow=()):
    return check_fingerprint(fingerprint, model, hook, context_length=context_length, allow=allow)


def centred():
    """The tiny model with mean 0 over d in all it writes to the residual stream; its logits stay the same."""
    model = load()
    before = model.logits(model.probe())
    transformer = model.module.transformer
    for table in (transformer.wte, transformer.wpe):
        # The unembedding is tied to wte; what this adds to the logits of a token is the same for all tokens.
        table.weight.data = table.weight.data - table.weight.data.mean(1, keepdim=True)
    for block in transformer.h:
        for layer in (block.attn.c_proj, block.mlp.c_proj):
            layer.weight.data = layer.weight.data - layer.weight.data.mean(1, keepdim=True)
            layer.bias.data = layer.bias.data - layer.bias.data.mean()
    torch.testing.assert_close(model.logits(model.probe()), before, atol=1e-4, rtol=1e-4)
    return model


def test_it_holds_who_and_what():
    fingerprint = saved()
    assert fingerprint["name"] == str(tiny_model_folder())
    assert fingerprint["weights_sha256"] == tiny_model().weights_sha256
    assert (fingerprint["hook"], fingerprint["dtype"], fingerprint["context_length"]) == (HOOK, "float32", 32)
    assert fingerprint["d"] == 32
    assert len(fingerprint["sketch"]) == 256


def test_norm_and_mean_are_those_of_the_probe():
    x = tiny_model().capture(tiny_model().probe(), [HOOK])[HOOK][0].double()
    rms_norm = math.sqrt(sum(float(row @ row) for row in x) / 64)
    largest = max(abs(float(row.mean())) / math.sqrt(float(row @ row) / 32) for row in x)
    assert saved()["rms_norm"] == pytest.approx(rms_norm, rel=1e-5)
    assert saved()["largest_mean"] == pytest.approx(largest, rel=1e-5)


def test_the_sketch_is_linear_and_keeps_lengths_on_average():
    x = torch.eye(400, dtype=torch.float64)
    directions = sketch(x) * 20  # back to the Gaussian matrix: sqrt(400) = 20
    assert directions.shape == (400, 4)
    assert directions.square().mean() == pytest.approx(1, abs=0.15)  # 1600 numbers: standard error 0.035
    torch.testing.assert_close(sketch(2 * x[:3] - x[3:6]), 2 * sketch(x)[:3] - sketch(x)[3:6])


def test_the_same_model_passes():
    assert check(saved(), tiny_model()) is None


def test_the_same_weights_in_another_folder_pass(tmp_path):
    moved = load(shutil.copytree(tiny_model_folder(), tmp_path / "elsewhere"))
    assert moved.name != tiny_model().name
    assert check(saved(), moved) is None


def test_a_fingerprint_is_the_same_on_every_call():
    assert saved() == saved(load())


def test_another_hook_is_refused():
    with pytest.raises(ValueError, match=f"reads {HOOK}, not blocks.0.hook_resid_post"):
        check(saved(), tiny_model(), "blocks.0.hook_resid_post")


@pytest.mark.parametrize(
    "kind", ["hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out"]
)
def test_centred_activations_are_refused(kind):
    hook = f"blocks.1.{kind}"
    with pytest.raises(ValueError, match=r"are centred.*no compatibility mode"):
        check(saved(hook=hook), centred(), hook)
    with pytest.raises(ValueError, match="trained on centred activations"):
        check(saved(centred(), hook), tiny_model(), hook)


def test_centred_activations_are_refused_also_where_other_weights_are_allowed():
    with pytest.raises(ValueError, match="are centred"):
        check(saved(), centred(), allow=("weights", "dtype", "context_length"))


def test_centring_leaves_the_neurons_alone():
    hook = "blocks.1.mlp.hook_post"
    assert check(saved(hook=hook), centred(), hook) is None


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_a_common_factor_is_named(factor):
    model = load()
    for table in (model.module.transformer.wte, model.module.transformer.wpe):
        table.weight.data = table.weight.data * factor
    hook = "blocks.0.hook_resid_pre"
    with pytest.raises(ValueError, match=f"are {factor:g} times those"):
        check(saved(hook=hook), model, hook)


def test_other_weights_are_refused_with_names_and_hashes():
    other = load(reinitialise_seed=1)
    with pytest.raises(ValueError, match="other weights") as raised:
        check(saved(), other)
    for part in (tiny_model().weights_sha256[:12], other.weights_sha256[:12], tiny_model().name):
        assert part in str(raised.value)


def test_other_weights_pass_where_they_are_meant():
    assert check(saved(), load(reinitialise_seed=1), allow=("weights",)) is None


def test_a_small_change_of_the_weights_is_seen():
    model = load()
    model.module.transformer.h[0].mlp.c_fc.weight.data *= 1.1
    with pytest.raises(ValueError, match="other weights"):
        check(saved(), model)


def test_another_width_is_refused(tmp_path):
    wide = load(write_example_model(tmp_path, d_model=48))
    with pytest.raises(ValueError, match=r"vectors of d=32, .* has 48"):
        check(saved(), wide, allow=("weights",))


@pytest.mark.parametrize(("trained", "used"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_another_dtype_is_refused_unless_meant(trained, used):
    fingerprint, model = saved(load(dtype=trained)), load(dtype=used)
    with pytest.raises(ValueError, match=f"dtype={trained}, {used} given"):
        check(fingerprint, model)
    assert check(fingerprint, model, allow=("dtype",)) is None


def test_another_context_length_is_refused_unless_meant():
    with pytest.raises(ValueError, match=r"context_length=32, 64 given.*allow=\('context_length',\)"):
        check(saved(), tiny_model(), context_length=64)
    assert check(saved(), tiny_model(), context_length=64, allow=("context_length",)) is None


def test_an_unknown_allowance_is_refused():
    with pytest.raises(ValueError, match=r"allow='weight' given\. Choose from weights, dtype, context_length"):
        check(saved(), tiny_model(), allow=("weight",))


def test_a_model_that_gives_nan_has_no_fingerprint():
    model = load()
    model.module.transformer.wte.weight.data[:] = math.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        take_fingerprint(model, HOOK, context_length=32)
