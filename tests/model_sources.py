"""Sources on tiny and small real language models that read the tiny text, and SAEs fitted to them."""

import functools

from tiny_models import tiny_text_file

from sae_toolkit import TopKSAE
from sae_toolkit.activations import Text, TextConfig, TransformerSource


@functools.cache
def source_of(model, *hooks):
    """Built once; tests must leave it as it is."""
    config = TextConfig(path=str(tiny_text_file()), context_length=16, eval_share=0.3, limit_tokens=6_000)
    text = Text.read(model.tokenizer, config)
    return TransformerSource(model, text, TransformerSource.Config(hooks=hooks, shuffle_buffer="2048 tokens"))


def last_hook(model):
    return f"blocks.{model.n_layers - 1}.hook_resid_post"


def sae_of(source, d_sae=40):
    sae = TopKSAE(TopKSAE.Config(d_in=source.d_in, d_sae=d_sae, k=4, normaliser="per_dimension"))
    sae.normaliser.fit_(next(source.stream(512, seed=0, split="train")).activations)
    return sae.eval()
