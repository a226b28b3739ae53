"""What each latent responds to: its strongest contexts, and some of every band of quantiles of its activations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int

from sae_toolkit.analysis.latent_chunks import Entries, LatentChunk
from sae_toolkit.analysis.latent_record import Example
from sae_toolkit.analysis.running_best import KEY_BITS, Facts, RunningBest
from sae_toolkit.analysis.windows import windows_of
from sae_toolkit.metrics.labels import select_rows
from sae_toolkit.seeding import generator_for
from sae_toolkit.sparse_rows import SparseRows

SPARE_TOP = 2
"""Of how many times the wanted documents the strongest activation is held, so that copies of a window can go."""
SPARE_BANDS = 4
"""How many times the wanted examples of all bands are held: a band of a quarter then lacks one once in 10^4 latents."""
SHOWN_FEATURES = 16
"""True features remembered of an example."""
DRAWN_AT_ONCE = 2**16
LARGEST_KEY = 2**KEY_BITS - 1

Quantiles = Callable[[Float32[np.ndarray, " n"]], Float64[np.ndarray, " n"]]
"""Of activations of one latent, the share of its nonzero ones that is weaker."""


@dataclass(frozen=True, kw_only=True)
class ExamplesConfig:
    """How many examples a latent gets, and how much text they show."""

    n_top: int = 10
    """Strongest activations."""
    n_per_band: int = 3
    """Activations drawn from each band."""
    quantiles: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Borders of the bands, as shares of the nonzero activations, ascending."""
    half_width: int = 10
    """Tokens shown on either side of the activation."""

    def __post_init__(self) -> None:
        if self.n_top < 0 or self.n_per_band < 0 or self.half_width < 0:
            raise ValueError(
                f"ExamplesConfig: n_top={self.n_top}, n_per_band={self.n_per_band}, half_width={self.half_width} "
                "given, but none may be negative."
            )
        pairs = pairwise(self.quantiles)
        if len(self.quantiles) < 2 or not all(0 <= low < high <= 1 for low, high in pairs):
            raise ValueError(
                f"ExamplesConfig: quantiles={self.quantiles} given, but borders ascend from 0 to 1 at most, and a band "
                "has two of them."
            )

    @property
    def bands(self) -> tuple[str, ...]:
        """What the bands are called, weakest first."""
        return tuple(f"{100 * low:g}-{100 * high:g} %" for low, high in pairwise(self.quantiles))


class Examples:
    """Examples of some latents, found in one pass with bounded memory; no two of a latent are from one document.

    Top: documents in the order of their largest |activation|, each with the first token that has it. The 2 * n_top
    strongest documents are held, as a sort of the whole stream would find them; of those whose windows hold the same
    tokens the strongest counts, and the first n_top are shown.

    Bands: of every document one activation is drawn at random, and of those a uniform sample is held (the smallest of
    random numbers, one per token), 4 * n_per_band for each band. Each goes to the band of its quantile, which is known
    to within half the share of its histogram bin. A band gets up to n_per_band of them, in the order of the draw.

    The draws depend on seed, token and latent alone, so neither the cut into batches nor which other latents are asked
    for changes an example. Held are (2 * n_top + 4 * n_per_band * n_bands) * (16 * half_width + 44) bytes per latent
    (14 kB as configured), 128 more for each of them where true features are known.
    """

    def __init__(self, latents: Sequence[int], *, config: ExamplesConfig, seed: int) -> None:
        """`latents`: numbers of the chosen latents, in the order in which chunks hold them."""
        self.config, self.seed = config, seed
        self.n_bands = len(config.quantiles) - 1
        self.strongest = RunningBest(len(latents), max(1, SPARE_TOP * config.n_top))
        self.drawn = RunningBest(len(latents), max(1, SPARE_BANDS * config.n_per_band * self.n_bands))
        self.offsets = offsets_of(np.array(latents, dtype=np.int64), seed)
        self.running_text = False

    def update(self, chunk: LatentChunk) -> None:
        """Adds one chunk."""
        self.running_text = chunk.token_rows.shape[1] > 1
        latents = chunk.latents
        documents = chunk.n_before + np.arange(len(chunk.places)) if chunk.documents is None else chunk.documents
        groups = documents[chunk.samples]

        def facts_of(entries: Entries) -> Facts:
            return facts_at(chunk, entries, latents[entries], self.config.half_width if self.running_text else 0)

        strength = np.abs(chunk.values).view(np.int32).astype(np.int64)  # bits of floats >= 0 are in their order
        self.strongest.update(latents, 2**31 - 1 - strength, groups, facts_of)
        draws = draws_of(chunk.n_before, len(chunk.places), self.seed)
        self.drawn.update(latents, (draws[chunk.samples] + self.offsets[latents]) & LARGEST_KEY, groups, facts_of)

    def of(
        self,
        latent: int,
        quantiles: Quantiles,
        *,
        token_texts: Sequence[str] | None = None,
        feature_names: Sequence[str] | None = None,
    ) -> tuple[Example, ...]:
        """Those of the latent in one place of the chosen ones, strongest first, band by band."""
        taken = Taken(self.running_text)
        top, drawn = self.strongest.of(latent), self.drawn.of(latent)
        n_top, n_drawn = len(top["group"]), len(drawn["group"])
        chosen = [("top", top, i) for i in taken.new_ones(top, np.zeros(n_top, dtype=np.int64), [self.config.n_top])]
        if n_drawn:
            bands = np.searchsorted(self.config.quantiles, quantiles(drawn["value"]), side="right") - 1
            found = taken.new_ones(drawn, bands, [self.config.n_per_band] * self.n_bands)
            found.sort(key=lambda i: (-bands[i], -abs(drawn["value"][i])))
            chosen += [(self.config.bands[bands[i]], drawn, i) for i in found]
        return tuple(example_of(name, facts, i, token_texts, feature_names) for name, facts, i in chosen)


class Taken:
    """The documents and windows that a latent's examples are from."""

    def __init__(self, running_text: bool) -> None:
        self.running_text = running_text
        self.documents: set[int] = set()
        self.windows: set[bytes] = set()

    def new_ones(self, facts: Facts, bands: Int[np.ndarray, " n"], room: list[int]) -> list[int]:
        """The first entries of every band, up to room[band], whose document and window are new; they are taken now."""
        found: list[int] = []
        for i, band in enumerate(bands.tolist()):
            document, window = int(facts["group"][i]), facts["token_ids"][i].tobytes()
            if not 0 <= band < len(room) or room[band] == 0 or document in self.documents:
                continue
            if self.running_text and window in self.windows:
                continue
            room[band] -= 1
            self.documents.add(document)
            self.windows.add(window)
            found.append(i)
        return found


def offsets_of(latents: Int[np.ndarray, " n_latents"], seed: int) -> Int[np.ndarray, " n_latents"]:
    """A random number of each latent, by its number: every latent then draws its own sample of the tokens."""
    generator = generator_for(seed, "offsets of latents' draws")
    n = int(latents.max(initial=-1)) + 1
    offsets: Int[np.ndarray, " n_latents"] = torch.randint(2**KEY_BITS, (n,), generator=generator).numpy()[latents]
    return offsets


def draws_of(first: int, n: int, seed: int) -> Int[np.ndarray, " n"]:
    """A random number for each of n tokens from token `first` on; a token's own does not depend on what is asked."""
    blocks = range(first // DRAWN_AT_ONCE, -(-(first + n) // DRAWN_AT_ONCE))
    drawn = [
        torch.randint(2**KEY_BITS, (DRAWN_AT_ONCE,), generator=generator_for(seed, "draws of tokens", block))
        for block in blocks
    ]
    start = first - blocks.start * DRAWN_AT_ONCE
    numbers: Int[np.ndarray, " n"] = torch.cat(drawn)[start : start + n].numpy()
    return numbers


def facts_at(chunk: LatentChunk, entries: Entries, latents: Entries, half_width: int) -> dict[str, np.ndarray]:
    """What an example needs to know of its entry."""
    samples = chunk.samples[entries]
    windows = windows_of(chunk, entries, latents, half_width)
    facts = {"value": chunk.values[entries], "token_ids": windows.token_ids, "activations": windows.activations}
    if chunk.documents is not None:
        facts["document"] = chunk.documents[samples]
    if chunk.positions is not None:
        facts["position"] = chunk.positions[samples]
    if chunk.coefficients is not None:
        facts["features"], facts["coefficients"] = strongest_features(chunk.coefficients, samples)
    return facts


def strongest_features(
    coefficients: SparseRows, samples: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, "n shown"], Float[np.ndarray, "n shown"]]:
    """The features of largest coefficient on some samples, largest first; -1 where there are no more."""
    rows = select_rows(coefficients, torch.from_numpy(samples.astype(np.int64)))
    values, row, column = rows.values.float().numpy(), rows.rows.numpy(), rows.indices.numpy()
    order = np.lexsort((-np.abs(values), row))
    rank = np.arange(len(order)) - rows.offsets.numpy()[:-1][row[order]]
    fits = (rank < SHOWN_FEATURES) & (values[order] != 0)
    order, rank = order[fits], rank[fits]
    features = np.full((len(samples), SHOWN_FEATURES), -1, dtype=np.int32)
    shown = np.zeros((len(samples), SHOWN_FEATURES), dtype=np.float32)
    features[row[order], rank], shown[row[order], rank] = column[order], values[order]
    return features, shown


def example_of(
    band: str, facts: Facts, i: int, token_texts: Sequence[str] | None, feature_names: Sequence[str] | None
) -> Example:
    """One entry as an example; a token whose text is unknown is shown as its id in brackets."""
    ids = facts["token_ids"][i]
    inside = np.flatnonzero(ids >= 0)
    activations = facts["activations"][i].astype(float)
    peak = len(ids) // 2
    shown = slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(peak, peak + 1)
    truth: tuple[tuple[str, float], ...] = ()
    if feature_names is not None and "features" in facts:
        pairs = zip(facts["features"][i].tolist(), facts["coefficients"][i].tolist(), strict=True)
        truth = tuple((feature_names[feature], value) for feature, value in pairs if feature >= 0)
    return Example(
        band=band,
        tokens=tuple(f"[{n}]" if token_texts is None else token_texts[n] for n in ids[inside].tolist()),
        activations=tuple(activations[shown].tolist()),
        peak=peak - shown.start,
        document=int(facts["document"][i]) if "document" in facts else None,
        position=int(facts["position"][i]) if "position" in facts else None,
        truth=truth,
    )
