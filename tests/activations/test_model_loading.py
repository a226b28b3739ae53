import json
import logging
import os
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
import transformers
from huggingface_hub import utils as hub
from safetensors.torch import load_file, save_file
from tiny_models import hugging_face, tiny_model, tiny_model_folder, tiny_tokenizer
from tokenizers import Tokenizer, models

from sae_toolkit.activations import model_loading, transformer
from sae_toolkit.activations.example_language import write_example_model
from sae_toolkit.activations.model_hash import hash_weights
from sae_toolkit.activations.model_loading import ModelConfig, load_model, quiet

WEIGHTS = "model.safetensors"


def load(folder, **changes):
    return load_model(ModelConfig(name=str(folder), device="cpu", **changes), offline=True)


@pytest.fixture
def folder(tmp_path):
    """A copy of the tiny model's folder, to be damaged."""
    return shutil.copytree(tiny_model_folder(), tmp_path / "model")


# What is loaded


def test_the_module_is_the_plain_model_untouched_by_the_bridge():
    plain = hugging_face(tiny_model_folder())
    found, expected = tiny_model().module.state_dict(), plain.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert type(tiny_model().module) is type(plain)
    assert tiny_model().module.config._attn_implementation == plain.config._attn_implementation == "sdpa"


def test_the_bridge_shares_the_weights():
    module, bridge = tiny_model().module, tiny_model().bridge
    addresses = {parameter.data_ptr() for parameter in bridge.original_model.parameters()}
    for name in ("transformer.wte.weight", "transformer.h.1.mlp.c_fc.weight", "transformer.h.0.ln_1.bias"):
        assert module.get_parameter(name).data_ptr() in addresses


def test_the_model_is_frozen_and_in_evaluation_mode():
    assert not any(parameter.requires_grad for parameter in tiny_model().module.parameters())
    assert not any(module.training for module in tiny_model().module.modules())


def test_the_tokenizer_is_the_plain_one():
    """The bridge's own copy prepends BOS by itself."""
    ids = tiny_tokenizer()("The cat slept.")["input_ids"]
    assert tiny_tokenizer().decode(ids) == "The cat slept."
    assert tiny_tokenizer().bos_token_id not in ids
    assert tiny_model().bridge.tokenizer is not tiny_tokenizer()


def test_dtype_and_device_are_as_asked():
    model = load(tiny_model_folder(), dtype="bfloat16")
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.bfloat16}
    assert (model.dtype, model.device) == (torch.bfloat16, torch.device("cpu"))


def test_loading_twice_gives_the_same_model():
    again = load(tiny_model_folder())
    assert again.weights_sha256 == tiny_model().weights_sha256
    assert torch.equal(again.logits(again.probe()), tiny_model().logits(again.probe()))


# Untrained models


def test_a_seed_draws_all_weights_anew():
    first, same, other = (load(tiny_model_folder(), reinitialise_seed=seed) for seed in (3, 3, 4))
    assert first.weights_sha256 == same.weights_sha256
    assert len({first.weights_sha256, other.weights_sha256, tiny_model().weights_sha256}) == 3
    for name, parameter in first.module.named_parameters():
        if parameter.std() > 0:  # norms start at 1, biases at 0
            assert not torch.allclose(parameter, other.module.get_parameter(name)), name


def test_an_untrained_model_is_what_hugging_face_draws():
    config = transformers.AutoConfig.from_pretrained(tiny_model_folder())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = transformers.AutoModelForCausalLM.from_config(config)
    assert load(tiny_model_folder(), reinitialise_seed=3).weights_sha256 == hash_weights(expected.state_dict())


def test_an_untrained_model_in_bfloat16_is_the_same_one_rounded():
    exact, rounded = (load(tiny_model_folder(), reinitialise_seed=3, dtype=dtype) for dtype in ("float32", "bfloat16"))
    for name, parameter in exact.module.named_parameters():
        assert torch.equal(parameter.bfloat16(), rounded.module.get_parameter(name))
    assert rounded.dtype == torch.bfloat16


def test_an_untrained_model_needs_no_weights(folder):
    (folder / WEIGHTS).unlink()
    assert load(folder, reinitialise_seed=0).describe()["reinitialise_seed"] == 0


# Folders and names


def test_no_name_is_refused():
    with pytest.raises(ValueError, match=r"name=None given\. Give a name"):
        load_model(ModelConfig(name=None))


@pytest.mark.parametrize("name", ["/no/such/folder", "./no_such_folder", "../no/such/folder", "~/no_such_folder"])
def test_a_folder_that_does_not_exist_is_refused(name):
    with pytest.raises(ValueError, match=f"the folder {name} does not exist"):
        load_model(ModelConfig(name=name))


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (["config.json"], "has no config.json"),
        ([WEIGHTS], "has no weights"),
        (["tokenizer.json", "tokenizer_config.json"], "has no tokenizer"),
        (["config.json", WEIGHTS], "has no config.json, no weights"),
    ],
)
def test_a_folder_that_lacks_something_is_told_what(lost, message, folder):
    for name in lost:
        (folder / name).unlink()
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("name", "content"), [("config.json", b"{"), (WEIGHTS, b"hello"), ("tokenizer.json", b"{}"), ("config.json", b"{}")]
)
def test_a_damaged_file_is_refused(name, content, folder):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"in the folder .* cannot be loaded"):
        load(folder)


def test_missing_weights_are_never_random(folder):
    weights = load_file(folder / WEIGHTS)
    del weights["transformer.h.0.mlp.c_fc.weight"]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"no weights for 1 parameters \(transformer.h.0.mlp.c_fc.weight"):
        load(folder)


@pytest.mark.parametrize(("n_words", "n_ids"), [(700, 701), (200, 201)])
def test_another_models_tokenizer_is_refused(n_words, n_ids, folder):
    words = {"<|endoftext|>": 0} | {f"w{i}": i + 1 for i in range(n_words)}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>")), eos_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match=f"has {n_ids} tokens, the model d_vocab=594"):
        load(folder)


def test_an_unknown_hub_name_without_network_says_that_folders_work():
    with pytest.raises(ValueError, match=r"network is off .* 'nobody/nothing' .* or give a folder"):
        load_model(ModelConfig(name="nobody/nothing"), offline=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device='cuda' asked"):
        load_model(ModelConfig(name=str(tiny_model_folder()), device="cuda"))
    assert load_model(ModelConfig(name=str(tiny_model_folder()))).device == torch.device("cpu")


FROM_CACHE = """
import json, socket
import torch
from huggingface_hub import constants

def refuse(*args):
    raise OSError("a socket was opened")

socket.socket.connect = refuse
socket.getaddrinfo = refuse
from sae_toolkit.activations.model_loading import ModelConfig, load_model

assert not constants.HF_HUB_OFFLINE
models = [load_model(ModelConfig(name="gpt2", device="cpu"), offline=True)]
constants.HF_HUB_OFFLINE = True
models.append(load_model(ModelConfig(name="gpt2", device="cpu")))
print(json.dumps([[m.name, m.weights_sha256, m.tokenizer("The cat")["input_ids"]] for m in models]))
"""


def test_a_hub_name_loads_from_the_cache_without_network(tmp_path):
    """Both ways to say that there is none: the argument, and Hugging Face's own switch."""
    repository = tmp_path / "hub/models--gpt2"
    shutil.copytree(tiny_model_folder(), repository / "snapshots/0123456789abcdef0123456789abcdef01234567")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0123456789abcdef0123456789abcdef01234567")
    places = {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", FROM_CACHE],
        env=os.environ | places,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = ["gpt2", tiny_model().weights_sha256, tiny_tokenizer()("The cat")["input_ids"]]
    assert json.loads(ran.stdout) == [expected, expected]
    assert ran.stderr == ""


# Checks while loading


def test_a_wrong_place_is_found_by_comparison(monkeypatch):
    honest = model_loading.plain_taps

    def swapped(bridge, module):
        taps = honest(bridge, module)
        taps["blocks.1.hook_resid_mid"] = taps["blocks.1.hook_resid_pre"]
        return taps

    monkeypatch.setattr(model_loading, "plain_taps", swapped)
    with pytest.raises(ValueError, match=r"blocks.1.hook_resid_mid of .* differs by"):
        load(tiny_model_folder())


def test_weights_changed_while_booting_are_found(monkeypatch):
    def boot(name, hf_model, tokenizer, **kwargs):
        hf_model.transformer.h[0].mlp.c_proj.weight.data -= 0.01

    monkeypatch.setattr(transformer, "boot_bridge", boot)
    with pytest.raises(ValueError, match="changes the weights"):
        load(tiny_model_folder())


# Manners


def test_loading_is_silent(capfd, caplog):
    with caplog.at_level(logging.INFO), warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tiny_model_folder())
        load(tiny_model_folder(), reinitialise_seed=0)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize("bars", [True, False])
def test_the_settings_of_transformers_are_as_before(bars):
    settings = transformers.utils.logging

    def state():
        return settings.get_verbosity(), settings.is_progress_bar_enabled(), hub.are_progress_bars_disabled()

    original = state()
    (settings.enable_progress_bar if bars else settings.disable_progress_bar)()
    settings.set_verbosity_info()
    before = state()
    try:
        with pytest.raises(RuntimeError, match=r"inside: \(50, False, True\)"), quiet():
            raise RuntimeError(f"inside: {state()}")
        assert state() == before == (logging.INFO, bars, not bars)
    finally:
        settings.set_verbosity(original[0])
        settings.enable_progress_bar()
    assert state() == original


@pytest.mark.parametrize(
    ("module", "missing"), [("transformers", "transformers"), ("transformer_lens.model_bridge", "transformer-lens")]
)
def test_a_missing_extra_is_said_in_one_line(module, missing, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"needs {missing}: pip install 'sae-toolkit\[lm\]'\.$") as raised:
        load(tiny_model_folder())
    assert "\n" not in str(raised.value)


def test_the_example_model_needs_the_extra_too(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"write_example_model needs transformers: pip install 'sae-toolkit\[lm\]'"):
        write_example_model(tmp_path)
