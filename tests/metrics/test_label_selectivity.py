"""Known answers for latents judged by labels: perfect, chance, by hand, gamed."""

from math import isnan, log

import numpy as np
import pytest
import torch
from fake_splicing import FakeSplicingSource
from scipy import sparse
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score
from tiny_models import REAL
from transformers import AutoTokenizer

from sae_toolkit import TopKSAE, TrainConfig, train
from sae_toolkit.activations import ArraySource
from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.activations.superposition import SuperpositionSource
from sae_toolkit.activations.token_texts import token_texts
from sae_toolkit.ground_truth.presets import dataset_a
from sae_toolkit.metrics.controls import FixedDictionary
from sae_toolkit.metrics.evaluate import evaluate
from sae_toolkit.metrics.label_selectivity import LabelSelectivity
from sae_toolkit.metrics.label_table import label_table, order_within, split_latents, strongest
from sae_toolkit.metrics.labels import documents, linguistic, position_buckets, token_identity
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.saes.coders import LinearTopK

N_TOKENS, N_DOCUMENTS, LENGTH = 10, 40, 50
N = N_DOCUMENTS * LENGTH
TEXTS = [f" w{i}" for i in range(N_TOKENS)]
ANY_SAE = FixedDictionary(torch.eye(2), coder=LinearTopK(1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def tokens():
    return torch.randint(N_TOKENS, (N,), generator=generator())


def metric_of(latents, token_ids, labellings=None, batch_size=300):
    metric = LabelSelectivity([token_identity(TEXTS)] if labellings is None else labellings)
    positions, document_ids = torch.arange(N) % LENGTH, torch.arange(N) // LENGTH
    for start in range(0, N, batch_size):
        part = slice(start, start + batch_size)
        x = torch.zeros(len(latents[part]), 1)
        batch = ActivationBatch(
            x, token_ids=token_ids[part], positions=positions[part], document_ids=document_ids[part]
        )
        metric.update(batch, SAEOutput(x, latents[part]))
    return metric


def scores_of(*args, **kwargs):
    return metric_of(*args, **kwargs).compute(ANY_SAE)


def random_latents(n_latents, rate, seed=1):
    return (torch.rand(N, n_latents, generator=generator(seed)) < rate).float()


def test_perfect_latents_get_full_marks(tokens):
    latents = torch.nn.functional.one_hot(tokens, N_TOKENS).float()
    scores = scores_of(latents, tokens)
    for name in ("purity_token", "purity_token_top", "pure_latents_token", "lift_token", "selectivity_token"):
        assert scores[name].value == 1, name
        assert scores[name].n == N_TOKENS
    assert scores["label_entropy_token"].value == pytest.approx(1)
    assert scores["label_coverage_token"].value == 1
    # all of H(fire) is explained, less what shuffled labels explain by chance: about 9 / (2 * 1000) nats of .33
    assert 0.97 < scores["mutual_information_token"].value < 1


def test_chance_stays_at_its_floor(tokens):
    scores = scores_of(random_latents(60, 0.1), tokens)
    for name in ("lift_token", "mutual_information_token", "selectivity_token"):
        assert abs(scores[name].value) < 0.02, name
        assert scores[name].low < 0 < scores[name].high, name
    shuffled = scores["purity_token_shuffled"]
    assert shuffled.low < scores["purity_token"].high
    assert scores["purity_token"].low < shuffled.high
    assert scores["purity_token"].value == pytest.approx(1 / N_TOKENS, abs=0.02)
    shuffled = scores["label_entropy_token_shuffled"]
    assert scores["label_entropy_token"].value == pytest.approx(shuffled.value, abs=0.01)
    assert scores["label_coverage_token"].value == scores["pure_latents_token"].value == 0


def test_a_table_by_hand():
    # 2 halves of 60 samples, 3 latents, 4 classes; each half: classes 0 0 1 1 2 3, ten times
    classes = np.tile([0, 0, 1, 1, 2, 3], 20)
    acts = np.zeros((120, 3), dtype=np.float32)
    acts[:, 0] = np.where(classes == 0, 2, np.where(classes == 2, 1, 0))  # class 0 (20 of a half), weakly class 2 (10)
    acts[:, 1] = classes == 1
    acts[:, 2] = 3  # always on
    table = label_table(
        split_latents(sparse.csr_matrix(acts), np.arange(120) >= 60),
        sparse.csr_matrix(np.eye(4)[classes]),
        classes="abcd",
        exclusive=True,
    )
    assert table.latents.tolist() == [0, 1, 2]
    assert table.n_fires.tolist() == [60, 40, 120]
    assert table.pure_class.tolist() == [0, 1, 0]
    assert table.purity == pytest.approx([2 / 3, 1, 1 / 3])
    assert table.purity_top[:2] == pytest.approx([1, 1])
    assert table.lifted_class.tolist()[:2] == [0, 1]
    assert table.lift == pytest.approx([(2 / 3 - 1 / 3) / (2 / 3), 1, 0])
    assert table.base_rate[:2] == pytest.approx([1 / 3, 1 / 3])
    # latent 0: mean 2 inside class 0; outside 10 activations of 1 in 40 samples
    assert table.selectivity == pytest.approx([(2 - 0.25) / (2 + 0.25), 1, 0])
    h_y = 2 / 3 * log(3) + 2 / 6 * log(6)
    assert table.label_entropy == pytest.approx([1 - (log(3) - 2 / 3 * log(2)) / h_y, 1, 0])
    assert table.mutual_information[2] == 0  # it tells nothing
    assert np.isnan(table.covered).tolist() == [False, False, True, True]  # classes 2 and 3 hold in 20 samples
    assert table.covered[:2].tolist() == [1, 1]


def test_against_a_loop_over_2000_tokens(tokens):
    latents = torch.rand(N, 8, generator=generator(11)) * random_latents(8, 0.15)
    latents[:, :4] += 2 * ((tokens[:, None] == torch.arange(4)) & (random_latents(4, 0.5, seed=12) > 0))
    table = metric_of(latents, tokens).tables()["token"]
    y, second = tokens.numpy(), (torch.arange(N) // LENGTH % 2 == 1).numpy()
    for i in range(8):
        z = latents[:, i].numpy().astype(np.float64)
        fires = z > 0
        first_lift = lifts_of(shares(y[~second & fires]), shares(y[~second]))
        given, base = shares(y[second & fires]), shares(y[second])
        pure, lifted = np.argmax(shares(y[~second & fires])), np.argmax(first_lift)
        inside, outside = z[second & (y == lifted)].mean(), z[second & (y != lifted)].mean()
        assert (table.pure_class[i], table.lifted_class[i]) == (pure, lifted)
        assert table.purity[i] == pytest.approx(given[pure])
        assert table.lift[i] == pytest.approx(lifts_of(given, base)[lifted])
        assert table.base_rate[i] == pytest.approx(base[lifted])
        assert table.selectivity[i] == pytest.approx((inside - outside) / (inside + outside), abs=1e-12)
        assert table.label_entropy[i] == pytest.approx(1 - entropy(given) / entropy(base))


def shares(labels):
    return np.array([(labels == c).mean() for c in range(N_TOKENS)])


def lifts_of(given, base):
    return (given - base) / (1 - base)


def test_information_is_corrected_by_shuffles_of_scikit_learns_value(tokens):
    latents = random_latents(1, 0.05)
    latents[:, 0] *= tokens < 5
    table = metric_of(latents, tokens).tables()["token"]
    half = (torch.arange(N) // LENGTH % 2 == 1).numpy()
    fires, labels = latents[half, 0].numpy(), tokens[half].numpy()
    rng = np.random.default_rng(5)
    chance = np.mean([mutual_info_score(fires, rng.permutation(labels)) for _ in range(400)])
    rate = fires.mean()
    h_fire = -rate * log(rate) - (1 - rate) * log(1 - rate)
    expected = (mutual_info_score(fires, labels) - chance) / h_fire
    spread = 0.01  # of a mean over 20 shuffles
    assert table.mutual_information[0] == pytest.approx(expected, abs=spread)


def test_what_a_token_decides_tells_nothing_more_given_the_token(tokens):
    early = torch.arange(N) % LENGTH < 8
    tokens[early] = torch.randint(3, (int(early.sum()),), generator=generator(3))  # tokens 0-2 are frequent early on
    look_up = torch.nn.functional.one_hot(tokens, N_TOKENS).float()[:, :3]
    knows_position = early.float()[:, None]
    scores = [scores_of(latents, tokens, [position_buckets()]) for latents in (look_up, knows_position)]
    assert scores[0]["mutual_information_position"].value > 0.02
    assert scores[0]["mutual_information_position_given_token"].value == pytest.approx(0, abs=1e-12)
    assert scores[1]["mutual_information_position_given_token"].value > 0.2


def test_documents_are_judged_inside_documents(tokens):
    mine = (torch.arange(N) // LENGTH)[:, None] == torch.arange(4)
    scores = scores_of(mine.float(), tokens, [documents()])
    assert scores["purity_document"].value == scores["lift_document"].value == 1


def test_several_classes_may_hold():
    texts = (" not", " nor", " the", " cats", ".")  # negation, negation + function word, function word, plural
    tokens = torch.randint(5, (N,), generator=generator())
    latents = torch.stack([tokens < 2, (tokens == 1) | (tokens == 2), tokens == 3], dim=1).float()
    metric = metric_of(latents, tokens, [linguistic(texts)])
    scores, table = metric.compute(ANY_SAE), metric.tables()["linguistic"]
    assert [table.classes[i] for i in table.lifted_class] == ["negation", "function_word", "plural_s"]
    assert scores["purity_linguistic"].value == scores["lift_linguistic"].value == 1
    assert scores["mutual_information_linguistic"].value == pytest.approx(1, abs=0.01)
    assert "label_entropy_linguistic" not in scores


def test_order_and_scale_of_latents_change_nothing(tokens):
    latents = torch.rand(N, 12, generator=generator(4)) * random_latents(12, 0.2)
    latents[:, :5] *= tokens[:, None] == torch.arange(5)
    order = torch.randperm(12, generator=generator(5))
    first = scores_of(latents, tokens)
    other = scores_of(latents[:, order] * torch.logspace(-3, 3, 12), tokens)
    for name, score in first.items():
        assert other[name].value == pytest.approx(score.value, abs=1e-6), name


def test_batches_change_nothing(tokens):
    latents = random_latents(12, 0.1)
    labellings = [token_identity(TEXTS), position_buckets(), documents()]
    assert repr(scores_of(latents, tokens, labellings, batch_size=N)) == repr(
        scores_of(latents, tokens, labellings, batch_size=7)
    )


def test_dead_and_rare_latents_are_left_out(tokens):
    latents = torch.nn.functional.one_hot(tokens, N_TOKENS).float()
    latents[:, 3:] = 0
    latents[:28, 4] = 1  # rare: 28 fires
    assert scores_of(latents, tokens)["purity_token"].n == 3
    silent = scores_of(torch.zeros(N, 4), tokens)
    assert silent["purity_token"].n == 0
    assert isnan(silent["purity_token"].value)
    assert silent["label_coverage_token"].value == 0


class TestGaming:
    """A dictionary that the naive versions (all latents, best label on the same samples) take in."""

    def naive_purity(self, latents, tokens):
        fires = latents[:, (latents > 0).any(0)] > 0
        rates = torch.stack([(fires & (tokens == t)[:, None]).sum(0) / fires.sum(0) for t in range(N_TOKENS)])
        return float(rates.max(0).values.mean())

    def test_junk_that_fires_once_is_no_pure_latent(self, tokens):
        junk = torch.zeros(N, 500)
        junk[torch.randint(N, (500,), generator=generator(7)), torch.arange(500)] = 1
        both = torch.cat([random_latents(50, 0.1), junk], dim=1)
        assert self.naive_purity(both, tokens) > 0.9
        assert scores_of(both, tokens)["purity_token"].value < 0.13

    def test_choosing_the_best_label_gains_nothing(self, tokens):
        latents = random_latents(300, 0.02)
        assert self.naive_purity(latents, tokens) > 0.15  # 40 fires each: the best of 10 rates lies 1.5 x .047 above .1
        assert scores_of(latents, tokens)["purity_token"].value == pytest.approx(0.1, abs=0.01)
        assert abs(scores_of(latents, tokens)["lift_token"].value) < 0.01

    def test_duplicates_cover_no_more(self, tokens):
        one = (tokens == 0).float()[:, None]
        scores = scores_of(one.expand(N, 100), tokens)
        assert scores["purity_token"].value == 1
        assert scores["label_coverage_token"].value == 1 / N_TOKENS

    def test_a_latent_that_is_always_on_is_not_pure_by_a_frequent_label(self, tokens):
        tokens[torch.rand(N, generator=generator(8)) < 0.92] = 0
        scores = scores_of(torch.ones(N, 1), tokens)
        assert scores["purity_token"].value > 0.9  # what the base rate alone gives
        assert scores["lift_token"].value == pytest.approx(0, abs=1e-9)
        assert scores["mutual_information_token"].value == 0
        assert scores["selectivity_token"].value == pytest.approx(0, abs=1e-9)
        assert scores["label_coverage_token"].value == 0

    def test_a_giant_latent_weighs_no_more_than_another(self, tokens):
        latents = torch.nn.functional.one_hot(tokens, N_TOKENS).float()
        latents[:, 0] = 1e6 * random_latents(1, 0.1)[:, 0]
        scores = scores_of(latents, tokens)
        assert scores["lift_token"].value == pytest.approx(0.9, abs=0.01)
        # its own is 0 +- .16: about 10 +- 3 fires with its class, and 90 without
        assert scores["selectivity_token"].value == pytest.approx(0.9, abs=0.05)


def test_the_strongest_of_each_row():
    acts = sparse.csr_matrix(np.array([[1.0, 0, 3, 2, 5, 4], [7, 7, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]))
    assert strongest(acts, 0.2).toarray().tolist() == [[0, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0], [0] * 6]
    assert strongest(acts, 0.4).toarray().tolist() == [[0, 0, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0], [0] * 6]


def test_orders_within_groups():
    groups = np.array([2, 0, 2, 1, 0, 2])
    orders = [order_within(groups, np.random.default_rng(seed)) for seed in range(30)]
    assert all(sorted(order) == list(range(6)) and (groups[order] == groups).all() for order in orders)
    assert len({tuple(order) for order in orders}) > 5


def test_true_features_are_labels_where_they_are_known():
    source = SuperpositionSource(dataset_a(seed=0))
    truth = FixedDictionary(source.directions, coder=LinearTopK(6))
    random = FixedDictionary(torch.randn(256, 64, generator=generator()), coder=LinearTopK(6))
    scores = evaluate(
        {"truth": truth, "random": random},
        source,
        n_samples=8000,
        metrics=lambda: LabelSelectivity.for_source(source),
    )
    assert scores["truth"]["lift_feature"].low > scores["random"]["lift_feature"].high
    assert scores["truth"]["label_coverage_feature"].value > 0.9
    assert LabelSelectivity.for_source(FakeSplicingSource()) == []


@pytest.mark.slow
def test_real_latents_are_told_from_untrained_ones_where_they_fire_most():
    if not REAL.is_dir():
        pytest.skip("../shared/data is not beside this checkout")
    source = ArraySource.from_file(
        REAL / "activations/stories260K_blocks.2.hook_resid_post.safetensors",
        config=ArraySource.Config(exclude_positions=(0,)),
    )
    texts = token_texts(AutoTokenizer.from_pretrained(REAL / "stories260K"))
    config = TopKSAE.Config(d_in=source.d_in, d_sae=256, k=8)
    trained, fresh = TopKSAE(config), TopKSAE(config, seed=1)
    train(trained, source, TrainConfig(n_samples=150_000))
    fresh.normaliser.load_state_dict(trained.normaliser.state_dict())
    scores = evaluate(
        {"trained": trained, "fresh": fresh},
        source,
        n_samples=10_000,
        metrics=lambda: [LabelSelectivity([token_identity(texts)])],
    )
    assert scores["trained"]["purity_token_top"].low > scores["fresh"]["purity_token_top"].high
    for found in scores.values():  # both read tokens, and neither by chance
        assert found["purity_token"].low > 2 * found["purity_token_shuffled"].high
        assert found["mutual_information_token"].low > 0.2
