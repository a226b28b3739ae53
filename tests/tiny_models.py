"""Tiny language models and a text for tests: built once per session; real ones where they lie beside the checkout."""

import atexit
import functools
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

from sae_toolkit.activations.example_language import write_example_model, write_example_text
from sae_toolkit.activations.language_model import LanguageModel
from sae_toolkit.activations.model_loading import ModelConfig, load_model, quiet
from sae_toolkit.seeding import generator_for

REAL = Path(__file__).parents[1].parent / "shared/data"
NAMES = ("tiny", "stories260K", "gpt2_mini")
N_LAYERS, D_MODEL, CONTEXT = 2, 32, 64
every_model = pytest.mark.parametrize("name", NAMES)


@functools.cache
def session_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="sae_toolkit_tests_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def tiny_model_folder() -> Path:
    """A randomly initialised GPT-2 (2 layers, d_model 32, context 64) with its tokenizer."""
    folder = session_folder() / "model"
    return write_example_model(folder, n_layers=N_LAYERS, d_model=D_MODEL, context=CONTEXT)


@functools.cache
def tiny_text_file() -> Path:
    """A .jsonl of 400 short documents that the tiny model's tokenizer covers."""
    return write_example_text(session_folder() / "text")


def tiny_model() -> LanguageModel:
    """The tiny model in float32 on the CPU; tests must leave it as it is."""
    return loaded("tiny")


def tiny_tokenizer() -> Any:
    return tiny_model().tokenizer


def real_model_folder(name: str) -> Path:
    """A small real model, or a skip where it is absent."""
    if not (REAL / name).is_dir():
        pytest.skip("../shared/data is not beside this checkout")
    return REAL / name


def model_folder(name: str) -> Path:
    """By one of `NAMES`: the tiny model or a real one."""
    return tiny_model_folder() if name == "tiny" else real_model_folder(name)


@functools.cache
def loaded(name: str) -> LanguageModel:
    """Any of `NAMES` in float32 on the CPU; tests must leave it as it is."""
    return load_model(ModelConfig(name=str(model_folder(name)), device="cpu"), offline=True)


def hugging_face(folder: Path, **kwargs: Any) -> Any:
    """The plain model, loaded without the library under test."""
    with quiet():
        return AutoModelForCausalLM.from_pretrained(folder, **kwargs).eval()


def fresh_bridge(folder: Path) -> Any:
    """A bridge as a user boots it, in memory of its own."""
    with quiet(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        return TransformerBridge.boot_transformers(
            str(folder),
            hf_model=hugging_face(folder),
            tokenizer=AutoTokenizer.from_pretrained(folder),
            device="cpu",
        )


def random_tokens(d_vocab: int, rows: int = 3, context: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randint(d_vocab, (rows, context), generator=generator_for(seed, "test tokens"))


@functools.cache
def plain(name: str) -> Any:
    """The same model, loaded by Hugging Face alone."""
    return hugging_face(model_folder(name))


@functools.cache
def bridge_of(name: str) -> Any:
    """The same model as a user boots it; tests must leave it as it is."""
    return fresh_bridge(model_folder(name))


def user_model(bridge: Any = None) -> LanguageModel:
    """The tiny model through a bridge of the user's own."""
    bridge = fresh_bridge(tiny_model_folder()) if bridge is None else bridge
    return LanguageModel.from_bridge(bridge, tiny_tokenizer(), name="mine")


def blocks_of(hf: Any) -> Any:
    return hf.transformer.h if hf.config.model_type == "gpt2" else hf.model.layers


def independent_place(hf: Any, layer: int, kind: str) -> tuple[torch.nn.Module, str]:
    """Module and side, written down by hand for the two architectures."""
    block = blocks_of(hf)[layer]
    gpt2 = hf.config.model_type == "gpt2"
    return {
        "hook_resid_pre": (block, "in"),
        "hook_attn_out": (block.attn if gpt2 else block.self_attn, "out"),
        "hook_resid_mid": (block.ln_2 if gpt2 else block.post_attention_layernorm, "in"),
        "mlp.hook_post": (block.mlp.act, "out") if gpt2 else (block.mlp.down_proj, "in"),
        "hook_mlp_out": (block.mlp, "out"),
        "hook_resid_post": (block, "out"),
    }[kind]
