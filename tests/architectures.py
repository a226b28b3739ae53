"""Tiny randomly initialised models of other architectures than those that ship."""

import torch
import transformers
from tiny_models import tiny_tokenizer

from sae_toolkit.activations.model_loading import ModelConfig, load_model

SIZES = {
    "vocab_size": 594,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
HEADS = {"num_key_value_heads": 2}
OPT = {key: value for key, value in SIZES.items() if key != "intermediate_size"} | {"ffn_dim": 64}
OTHERS = {
    "parallel": transformers.GPTNeoXConfig(**SIZES),
    "flattened": transformers.OPTConfig(**OPT, word_embed_proj_dim=32),
    "extra norms": transformers.Gemma2Config(**SIZES, **HEADS, head_dim=8, sliding_window=16),
    "experts": transformers.MixtralConfig(**SIZES, **HEADS, num_local_experts=4),
    "scaled": transformers.GraniteConfig(**SIZES, **HEADS, residual_multiplier=0.3),
}


def saved_model(config, folder):
    """A randomly initialised model of any architecture, with the tiny model's tokenizer."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return load_model(ModelConfig(name=str(folder), device="cpu"), offline=True)
