"""What finding examples costs: throughput against bare encoding of the same text, and memory over more of it.

    python benchmarks/examples_pass.py --d_in 768 --d_sae 4096 --k 32 --tokens 100000
    python benchmarks/examples_pass.py --known_latents --d_sae 256 --k 4
    python benchmarks/examples_pass.py --memory --tokens 100000      # again with --tokens 1000000

"bare encode" reads the eval stream and encodes it, nothing else. "examples" adds examples and statistics of all
latents, "everything" what `describe_latents` collects besides. A stretch of each is timed in turn, several times over;
printed are the medians of the ratios of CPU seconds within a round, bare / other: 1 would be free. The made-up text is
cut from a few batches held in memory, so that only the dictionary and the pass are timed; a language model's own time
comes on top of both. `--known_latents` reads the model that ships, live. Memory is that of a whole pass, over what was
there before.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Collection, Iterator

import torch

from sae_toolkit.activations import (
    ActivationBatch,
    ActivationSource,
    ModelConfig,
    TransformerSource,
    load_known_latents,
)
from sae_toolkit.activations.known_latents import KnownLatentsSource
from sae_toolkit.activations.source import TextRows
from sae_toolkit.analysis.activation_statistics import ActivationStatistics
from sae_toolkit.analysis.examples import Examples, ExamplesConfig
from sae_toolkit.analysis.held_out import read_held_out
from sae_toolkit.analysis.latent_chunks import ChunkBuilder, latents_of
from sae_toolkit.analysis.latent_pass import LatentPass
from sae_toolkit.plan import memory
from sae_toolkit.saes import TopKSAE

ROWS, CONTEXT, N_READY = 8, 128, 16
TEXTS = [f"{' ' if i % 3 else ''}{chr(97 + i % 26)}{i}" for i in range(5000)]


class MadeUpText(ActivationSource):
    """Documents of 300 tokens in rows of 128, the first token of each row left out."""

    def __init__(self, n_tokens: int, d_in: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.n_groups = -(-n_tokens // (ROWS * (CONTEXT - 1)))
        self.ready = torch.randn(N_READY, ROWS, CONTEXT, d_in, generator=generator)
        self.kept = torch.ones(ROWS, CONTEXT, dtype=torch.bool)
        self.kept[:, 0] = False

    @property
    def d_in(self) -> int:
        return self.ready.shape[-1]

    @property
    def token_texts(self) -> list[str]:
        return TEXTS

    def held_out_rows(self, *, beside: Collection[str] = ()) -> Iterator[TextRows]:
        for group in range(self.n_groups):
            places = torch.arange(group * ROWS * CONTEXT, (group + 1) * ROWS * CONTEXT).view(ROWS, CONTEXT)
            ids = (places * 7919 % 104_729) % len(TEXTS)
            yield TextRows(self.ready[group % N_READY], ids, places // 300, self.kept)

    def stream(self, batch_size: int, *, seed: int, split: str) -> Iterator[ActivationBatch]:
        for rows in self.held_out_rows():
            yield ActivationBatch(rows.activations[rows.kept], token_ids=rows.token_ids[rows.kept])

    def describe(self) -> dict[str, object]:
        return {"name": "MadeUpText"}


@torch.no_grad()
def bare_encode(sae: TopKSAE, source: ActivationSource, n_tokens: int) -> None:
    n = 0
    for batch in source.stream(ROWS * CONTEXT, seed=0, split="eval"):
        sae.forward_latents(batch.activations)
        n += len(batch.activations)
        if n >= n_tokens:
            return


@torch.no_grad()
def examples(sae: TopKSAE, source: ActivationSource, n_tokens: int) -> None:
    builder, found = ChunkBuilder(), Examples(range(sae.d_sae), config=ExamplesConfig(), seed=0)
    totals = ActivationStatistics(sae.d_sae)
    for part in read_held_out(source, n_samples=n_tokens):
        chunk = builder.add(part, latents_of(sae, part.batch.activations))
        if chunk is not None:
            totals.update(chunk)
            found.update(chunk)
    chunk = builder.take()
    if chunk is not None:
        totals.update(chunk)
        found.update(chunk)


def everything(sae: TopKSAE, source: ActivationSource, n_tokens: int) -> None:
    found = LatentPass(sae, source, range(sae.d_sae), config=ExamplesConfig(), seed=0)
    found.read(n_tokens, batch_size=1024, seed=0)


WAYS: dict[str, Callable[[TopKSAE, ActivationSource, int], None]] = {
    "bare encode": bare_encode,
    "examples": examples,
    "everything": everything,
}


def seconds(way: str, sae: TopKSAE, source: ActivationSource, n_tokens: int) -> float:
    started = time.process_time()
    WAYS[way](sae, source, n_tokens)
    return time.process_time() - started


def known_latents() -> KnownLatentsSource:
    activations = TransformerSource.Config(hooks=("blocks.1.hook_resid_post",))
    documents = KnownLatentsSource.Config(n_documents=8192)
    return load_known_latents(ModelConfig(name=None, device="cpu"), activations, documents)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("tokens", 100_000), ("d_in", 768), ("d_sae", 4096), ("k", 32), ("rounds", 3), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--known_latents", action="store_true")
    parser.add_argument("--memory", action="store_true", help="one pass of examples alone, for its memory")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    source = known_latents() if options.known_latents else MadeUpText(options.tokens, options.d_in)
    sae = TopKSAE(TopKSAE.Config(d_in=source.d_in, d_sae=options.d_sae, k=options.k)).eval()
    sae.normaliser.fit_(next(iter(source.stream(1024, seed=0, split="eval"))).activations)
    what = "known latents" if options.known_latents else "made-up text"
    print(f"{what}, {options.tokens:,} tokens, d_in {source.d_in}, d_sae {options.d_sae:,}, k {options.k}", flush=True)
    if options.memory:
        memory.reset_peaks()
        before = memory.resident_bytes()
        examples(sae, source, options.tokens)
        print(f"examples: {(memory.peak_bytes() - before) / 1e6:.0f} MB over what was there", flush=True)
        return
    bare_encode(sae, source, 10_000)
    ratios: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        taken = {way: seconds(way, sae, source, options.tokens) for way in WAYS}
        for way, spent in taken.items():
            ratios[way].append(taken["bare encode"] / spent)
        print("  ".join(f"{way} {spent:.1f} s" for way, spent in taken.items()), flush=True)
    for way, values in ratios.items():
        print(f"{way}: {statistics.median(values):.2f} of the speed of bare encoding", flush=True)


if __name__ == "__main__":
    main()
