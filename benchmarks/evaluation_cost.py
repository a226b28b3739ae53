"""What scoring costs: time of the metrics against one bare encode pass, and memory over the model.

    python benchmarks/evaluation_cost.py --tokens 1000000 --d_in 768 --d_sae 24576 --k 32 [--full]

The source makes up what a language model would give (activations, token ids with texts, positions, documents) from a
few batches held in memory, so that only the dictionary and the metrics are timed. "encode" is one pass of the SAE's
encoder over all tokens and nothing else. A stretch of encoding and of encoding and feeding the metrics are timed in
turn, several times over, and the median of the ratios is printed; then each takes the whole stream once, for its memory
and for what metrics compute at the end (which does not grow with the number of tokens).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from sae_toolkit.activations import ActivationBatch, ActivationSource, ActivationStream
from sae_toolkit.metrics import default_metrics, evaluate, full_metrics
from sae_toolkit.metrics.evaluate import feed
from sae_toolkit.plan import memory
from sae_toolkit.saes import TopKSAE

BATCH, DOCUMENT, N_READY = 1024, 128, 16
TEXTS = [f"{' ' if i % 3 else ''}{chr(97 + i % 26)}{i}" for i in range(5000)]


class MadeUpStream(ActivationStream):
    def __init__(self, source: "MadeUpTokens") -> None:
        self.source, self.step = source, 0

    def __next__(self) -> ActivationBatch:
        if self.step * BATCH >= self.source.n_tokens:
            raise StopIteration
        numbers = torch.arange(self.step * BATCH, (self.step + 1) * BATCH)
        ready = self.source.ready[self.step % N_READY]
        self.step += 1
        ids = (numbers * 7919 % 104_729) % len(TEXTS)
        return ActivationBatch(ready, token_ids=ids, positions=numbers % DOCUMENT, document_ids=numbers // DOCUMENT)

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


class MadeUpTokens(ActivationSource):
    def __init__(self, n_tokens: int, d_in: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.n_tokens = n_tokens
        self.ready = torch.randn(N_READY, BATCH, d_in, generator=generator)

    @property
    def d_in(self) -> int:
        return self.ready.shape[-1]

    @property
    def token_texts(self) -> list[str]:
        return TEXTS

    def stream(self, batch_size: int, *, seed: int, split: str) -> MadeUpStream:
        assert batch_size == BATCH
        return MadeUpStream(self)

    def describe(self) -> dict[str, object]:
        return {"name": "MadeUpTokens"}


@torch.no_grad()
def encode(sae: TopKSAE, source: MadeUpTokens) -> None:
    for batch in source.stream(BATCH, seed=0, split="eval"):
        sae.forward_latents(batch.activations)


def measured(what: Callable[[], object]) -> tuple[float, int]:
    """Seconds, and bytes on top of what was there before."""
    memory.reset_peaks()
    before, started = memory.resident_bytes(), time.perf_counter()
    what()
    return time.perf_counter() - started, memory.peak_bytes() - before


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("tokens", 1_000_000), ("d_in", 768), ("d_sae", 24_576), ("k", 32), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--full", action="store_true", help="the full suite, too")
    options = parser.parse_args()
    sae = TopKSAE(TopKSAE.Config(d_in=options.d_in, d_sae=options.d_sae, k=options.k)).eval()
    stretch = MadeUpTokens(32 * BATCH, options.d_in)
    whole = MadeUpTokens(options.tokens, options.d_in)
    sae.normaliser.fit_(stretch.ready[0])

    def scored(source: MadeUpTokens, metrics: Callable[..., list]) -> Callable[[], object]:
        return lambda: evaluate(sae, source, n_samples=source.n_tokens, metrics=lambda: metrics(source))

    def fed(source: MadeUpTokens) -> None:
        feed({"sae": sae}, source, n_samples=source.n_tokens, metrics=lambda: default_metrics(source))

    print(f"{options.tokens:,} tokens, d_in {options.d_in}, d_sae {options.d_sae:,}, k {options.k}", flush=True)
    encode(sae, stretch)
    ratios = []
    for _ in range(options.rounds):
        alone, _ = measured(lambda: encode(sae, stretch))
        both, _ = measured(lambda: fed(stretch))
        ratios.append(both / alone)
    print(f"{stretch.n_tokens:,} tokens, always-on metrics / encode: {statistics.median(ratios):.2f}", flush=True)
    seconds, n_bytes = measured(lambda: encode(sae, whole))
    print(f"encode pass: {seconds:.1f} s, {n_bytes / 1e9:.2f} GB over the model", flush=True)
    suites = {"always-on metrics": default_metrics} | ({"full suite": full_metrics} if options.full else {})
    for name, metrics in suites.items():
        taken, n_bytes = measured(scored(whole, metrics))
        print(f"{name}: {taken:.1f} s = {taken / seconds:.2f} encode passes, {n_bytes / 1e9:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
