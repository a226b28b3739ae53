"""Losses of a language model with a dictionary in it, against losses worked out token by token."""

import gc
from math import exp, isnan, log, tanh

import pytest
import torch
from fake_splicing import FakeSplicingSource

from sae_toolkit.activations.splicing_site import SplicingSiteSource
from sae_toolkit.metrics import FixedDictionary, LinearTopK, ModelLoss, Score, model_loss
from sae_toolkit.saes.base import AbstractDictionary, SAEOutput


class Mapped(AbstractDictionary):
    """A dictionary that turns activations into whatever a test likes."""

    d_sae = 1

    def __init__(self, change, d_in):
        self.change, self.d_in = change, d_in

    def forward(self, x):
        return SAEOutput(self.change(x), torch.zeros(*x.shape[:-1], 1))

    def decoder_directions(self):
        return torch.ones(1, self.d_in)


def at(site: str, **settings: object) -> SplicingSiteSource:
    return SplicingSiteSource(FakeSplicingSource(**settings), site)


def scores_of(source, change, n_tokens=10_000) -> dict[str, Score]:
    return ModelLoss(source, n_tokens).compute(Mapped(change, source.d_in))


def losses_by_hand(fake: FakeSplicingSource, site: str, change) -> tuple[list[float], list[float]]:
    """Cross-entropy and KL of every held-out token, one word at a time."""

    def predict(row: list[float], spliced: bool) -> list[float]:
        row = change(torch.tensor(row)).tolist() if spliced and site == "early" else row
        late = [tanh(sum(x * w for x, w in zip(row, column, strict=True))) for column in fake.to_late.T.tolist()]
        late = change(torch.tensor(late)).tolist() if spliced and site == "late" else late
        words = zip(fake.to_words.T.tolist(), fake.bias.tolist(), strict=True)
        chances = [exp(bias + sum(x * w for x, w in zip(late, word, strict=True))) for word, bias in words]
        return [chance / sum(chances) for chance in chances]

    losses, divergences = [], []
    for document in range(1, len(fake.early), 2):
        for position in range(1, fake.context):
            row, word = fake.early[document, position].tolist(), int(fake.following[document, position])
            clean, spliced = predict(row, False), predict(row, True)
            losses.append(-log(spliced[word]))
            divergences.append(sum(p * log(p / q) for p, q in zip(clean, spliced, strict=True)))
    return losses, divergences


def average(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("site", ["early", "late"])
def test_every_score_is_that_of_a_loop_over_tokens(site):
    source, fake = at(site), FakeSplicingSource()
    found = {name: score.value for name, score in scores_of(source, lambda x: 0.3 * x - 0.1).items()}
    mean = model_loss.mean_activation(source)
    clean, _ = losses_by_hand(fake, site, lambda x: x)
    spliced, kl = losses_by_hand(fake, site, lambda x: 0.3 * x - 0.1)
    zero, _ = losses_by_hand(fake, site, torch.zeros_like)
    at_mean, kl_mean = losses_by_hand(fake, site, lambda x: mean)
    c, s, z, m = (average(losses) for losses in (clean, spliced, zero, at_mean))
    expected = {
        "ce_clean": c,
        "ce_spliced": s,
        "ce_zero": z,
        "ce_mean": m,
        "ce_recovered_zero": (z - s) / (z - c),
        "ce_recovered_mean": (m - s) / (m - c),
        "kl_spliced": average(kl),
        "kl_recovered_mean": 1 - average(kl) / average(kl_mean),
    }
    assert found == pytest.approx(expected, abs=1e-5)
    assert 0.1 < found["ce_recovered_mean"] < 0.9


@pytest.mark.parametrize("site", ["early", "late"])
def test_splicing_the_activations_themselves_recovers_everything(site):
    scores = scores_of(at(site), lambda x: x)
    for name in ("ce_recovered_zero", "ce_recovered_mean", "kl_recovered_mean"):
        assert (scores[name].value, scores[name].low, scores[name].high) == (1, 1, 1)
    assert scores["ce_spliced"].value == scores["ce_clean"].value
    assert scores["kl_spliced"].value == 0


def test_splicing_the_mean_recovers_nothing():
    source = at("late")
    scores = scores_of(source, lambda x: model_loss.mean_activation(source).expand_as(x))
    for name in ("ce_recovered_mean", "kl_recovered_mean"):
        assert (scores[name].value, scores[name].low, scores[name].high) == (0, 0, 0)
    assert scores["ce_spliced"].value == scores["ce_mean"].value


def test_splicing_zeros_recovers_nothing():
    source = at("early")
    nothing = FixedDictionary(torch.zeros(3, 6), coder=LinearTopK(1))
    scores = ModelLoss(source).compute(nothing)
    assert scores["ce_recovered_zero"].value == 0
    assert scores["ce_spliced"].value == scores["ce_zero"].value


def test_the_mean_is_that_of_the_train_split():
    fake = FakeSplicingSource()
    rows = fake.late(fake.early[::2, 1:]).reshape(-1, 4)
    drawn = model_loss.mean_activation(SplicingSiteSource(fake, "late"))
    # 16,384 draws from these rows: four standard errors
    assert (drawn - rows.mean(0)).abs().max() < 4 * rows.std(0).max() / 128


def test_a_model_that_ignores_the_site_has_nothing_to_recover():
    scores = scores_of(at("late", sharpness=0.0), lambda x: x)
    for name in ("ce_recovered_zero", "ce_recovered_mean", "kl_recovered_mean"):
        assert isnan(scores[name].value)
        assert scores[name].low is None
        assert scores[name].n == 240
    assert scores["ce_clean"].value == pytest.approx(log(7))


def test_an_ablation_that_helps_leaves_nothing_to_recover():
    fake = FakeSplicingSource()
    fake.to_words = -fake.to_words  # after the text was drawn: whatever the model knows misleads it
    scores = scores_of(SplicingSiteSource(fake, "late"), lambda x: x / 2)
    assert scores["ce_zero"].value < scores["ce_clean"].value - 0.05
    assert isnan(scores["ce_recovered_zero"].value)


def test_a_splice_that_improves_the_model_is_reported_as_it_is():
    # predictions sharper than the text are overconfident, so shrunk activations predict it better
    fake = FakeSplicingSource()
    fake.to_words = 3 * fake.to_words
    scores = scores_of(SplicingSiteSource(fake, "late"), lambda x: x / 3)
    assert scores["ce_spliced"].value < scores["ce_clean"].value
    assert scores["ce_recovered_mean"].value > 1


@pytest.mark.parametrize("rows_at_once", [1, 7, 30])
def test_chunks_change_nothing(rows_at_once):
    first = scores_of(at("early"), lambda x: x / 2)
    other = scores_of(at("early", rows_at_once=rows_at_once), lambda x: x / 2)
    for name, score in first.items():
        expected = (score.value, score.low, score.high, score.n)
        found = (other[name].value, other[name].low, other[name].high, other[name].n)
        assert found == pytest.approx(expected, abs=1e-5), name


def test_intervals_enclose_the_value_and_count_tokens():
    for name, score in scores_of(at("early"), lambda x: x / 2, n_tokens=80).items():
        assert score.low < score.value < score.high, name
        assert score.n == 80


def test_documents_are_resampled_whole():
    # ten documents whose tokens all lose alike know less about the mean than eighty that lose apart
    class OneWordRows(FakeSplicingSource):
        def __init__(self):
            super().__init__()
            self.early = self.early[:, :1].expand_as(self.early).contiguous()
            self.following = self.following[:, :1].expand_as(self.following).contiguous()

    def width(source) -> float:
        score = scores_of(SplicingSiteSource(source, "late"), lambda x: x / 2)["ce_clean"]
        return score.high - score.low

    assert width(OneWordRows()) > 1.7 * width(FakeSplicingSource())


def test_too_few_documents_have_no_interval():
    scores = scores_of(at("early", n_documents=14), lambda x: x / 2)  # seven of them held out
    assert all(score.low is None and score.high is None for score in scores.values())


def test_what_needs_no_dictionary_is_computed_once_per_source():
    source = at("early")
    for _ in range(3):
        scores_of(source, lambda x: x)
    assert source.model_source.n_calls == 1 + 3


def test_the_memory_of_a_source_ends_with_it():
    gc.collect()
    before = len(model_loss.ABLATIONS), len(model_loss.MEANS)
    source = at("early")
    scores_of(source, lambda x: x)
    assert (len(model_loss.ABLATIONS), len(model_loss.MEANS)) == (before[0] + 1, before[1] + 1)
    del source
    gc.collect()
    assert (len(model_loss.ABLATIONS), len(model_loss.MEANS)) == before


def test_other_tokens_on_a_second_call_are_refused():
    class Wandering(FakeSplicingSource):
        def documents(self, split):
            return super().documents(split)[self.n_calls :]

    with pytest.raises(ValueError, match="same tokens, in the same order"):
        scores_of(SplicingSiteSource(Wandering(), "early"), lambda x: x)


def test_no_held_out_text_is_an_error():
    with pytest.raises(ValueError, match="counted none on the eval split"):
        scores_of(at("early", n_documents=1), lambda x: x)


def test_no_tokens_asked_is_an_error():
    with pytest.raises(ValueError, match="n_tokens=0"):
        ModelLoss(at("early"), 0)


def test_a_dictionary_is_given_a_bounded_number_of_samples_at_once():
    seen = []

    def count(x):
        seen.append(len(x))
        return x

    scores_of(at("early", n_documents=400, rows_at_once=200), count)
    assert seen == [1024, 576]  # 200 documents of 8 counted tokens


def test_gradients_are_not_kept():
    seen = []

    def watch(x):
        seen.append(torch.is_grad_enabled())
        return x

    scores_of(at("early"), watch)
    assert seen
    assert not any(seen)


def test_a_perfect_transcoder_recovers_everything_and_one_that_says_nothing_is_the_zero_ablation():
    fake = FakeSplicingSource()
    there = SplicingSiteSource(fake, "early", target="late")
    perfect = scores_of(there, fake.late)
    assert perfect["ce_recovered_zero"].value == pytest.approx(1, abs=1e-6)
    assert perfect["ce_recovered_mean"].value == pytest.approx(1, abs=1e-6)
    silent = scores_of(there, lambda x: x[:, :4] * 0)
    alone = scores_of(SplicingSiteSource(fake, "late"), lambda x: x * 0)
    for name in ("ce_clean", "ce_spliced", "ce_zero", "ce_mean", "kl_spliced"):
        assert silent[name].value == alone[name].value
    assert silent["ce_spliced"].value == silent["ce_zero"].value


def test_of_several_sites_at_once_no_loss_is_asked():
    assert ModelLoss.for_source(FakeSplicingSource()) == []
    assert len(ModelLoss.for_source(FakeSplicingSource(("late",)))) == 1
