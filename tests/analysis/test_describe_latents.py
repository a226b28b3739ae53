"""One pass gives every latent its record: on text, on known worlds, on arrays."""

import json
from math import isnan

import pytest
import torch
from scipy.stats import pearsonr
from text_world import Identity, TextWorld
from tiny_models import tiny_model, tiny_text_file
from toy import working_sae

from sae_toolkit import JumpReluSAE, SuperpositionSource, TopKCrosscoder, TopKSAE, TopKTranscoder
from sae_toolkit.activations import ArraySource, Text, TextConfig, TransformerSource
from sae_toolkit.activations.place import Place
from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.activations.splicing_site import site_of
from sae_toolkit.analysis import DictionaryRecord, Neighbour, describe_latents, direct_logit_effects, effect_agreement
from sae_toolkit.ground_truth import hierarchical_world
from sae_toolkit.metrics import LabelSelectivity, labellings_for
from sae_toolkit.saes.base import SAEOutput
from sae_toolkit.seeding import generator_for
from sae_toolkit.sparse_rows import SparseRows

SAMPLES = 2000


@pytest.fixture(scope="module")
def world():
    return TextWorld(n_rows=240, step=0)


@pytest.fixture(scope="module")
def sae():
    return working_sae(TopKSAE)


@pytest.fixture(scope="module")
def record(world, sae) -> DictionaryRecord:
    return describe_latents(sae, world, n_tokens=SAMPLES)


@pytest.fixture(scope="module")
def dense(world, sae):
    """Every activation at once, as no pass may hold them."""
    with torch.no_grad():
        return sae.encode(world.samples(SAMPLES)["activations"])


def test_statistics_are_those_of_all_activations(record, dense):
    assert record.n_samples == len(dense) == SAMPLES
    assert [latent.latent for latent in record.latents] == list(range(16))
    for latent in record.latents:
        z = dense[:, latent.latent]
        assert latent.density == pytest.approx(float((z != 0).double().mean()))
        assert latent.max_activation == pytest.approx(float(z.max()), rel=1e-6)
        assert latent.mean_activation == pytest.approx(float(z[z != 0].double().mean()), rel=1e-6, nan_ok=True)
        assert (latent.histogram is None) == bool((z == 0).all())
        assert sum(latent.histogram.counts if latent.histogram else ()) == int((z != 0).sum())


def test_the_first_example_is_the_largest_activation(record, dense, world):
    known = world.samples(SAMPLES)
    for latent in record.latents:
        if latent.examples:
            first, place = latent.examples[0], int(dense[:, latent.latent].argmax())
            assert first.activations[first.peak] == pytest.approx(latent.max_activation)
            assert (first.document, first.position) == (
                int(known["document_ids"][place]),
                int(known["position"][place]),
            )


def test_correlated_neurons_are_those_of_all_tokens(record, dense, world):
    neurons = world.samples(SAMPLES)["neurons"].double().numpy()
    for latent in record.latents:
        z = dense[:, latent.latent].double().numpy()
        if z.std() == 0:
            continue
        r = {j: pearsonr(z, neurons[:, j]).statistic for j in range(neurons.shape[1]) if neurons[:, j].std() > 0}
        best = max(r, key=lambda j: abs(r[j]))
        shown = latent.related["correlated neurons"][0]
        assert (shown.index, shown.value) == (best, pytest.approx(r[best], abs=1e-6))


def test_latents_that_fire_together_are_those_of_all_tokens(record, dense):
    fires = (dense > 0).double().numpy()
    for latent in record.latents:
        if not 0 < fires[:, latent.latent].mean() < 1:
            continue
        others = [j for j in range(16) if j != latent.latent and 0 < fires[:, j].mean() < 1]
        r = {j: pearsonr(fires[:, latent.latent], fires[:, j]).statistic for j in others}
        expected = sorted((value for value in r.values() if value > 1e-12), reverse=True)[:10]
        assert [n.value for n in latent.related["fires together with"]] == pytest.approx(expected, abs=1e-9)


def test_nearest_latents_are_told(record, sae):
    units = torch.nn.functional.normalize(sae.decoder_directions().detach().double())
    cosines = units @ units.T - 2 * torch.eye(16)
    shown = record.latents[5].related["nearest by decoder"]
    assert shown[0].index == int(cosines[5].argmax())
    assert len(shown) == 10


def test_what_was_left_out_is_counted(record, world):
    rows = world.kept.flatten().cumsum(0).view_as(world.kept)[:, -1]
    n_read = (int((rows < SAMPLES).sum()) // 3 + 1) * 3
    assert record.excluded == {
        "bos": int((world.token_ids[:n_read] == 0).sum()),
        "eos": int((world.token_ids[:n_read] == 1).sum()),
    }


def test_scores_by_labels_are_those_of_the_metric(record, world, sae, dense):
    """The same table as `LabelSelectivity` makes of the whole dictionary, latent by latent, with its shuffled floor."""
    metric = LabelSelectivity(labellings_for(world))
    known = world.samples(SAMPLES)
    batch = ActivationBatch(
        known["activations"],
        token_ids=known["token_ids"],
        positions=known["position"],
        document_ids=known["document_ids"],
        coefficients=SparseRows.from_dense(known["truth"]),
    )
    metric.update(batch, SAEOutput(known["activations"], dense))
    table = metric.tables()["token"]
    assert len(table.latents) > 5
    for i, latent in enumerate(table.latents.tolist()):
        shown = record.latents[latent].scores
        assert shown["purity_token"].value == pytest.approx(table.purity[i])
        assert shown["purity_token"].floor == pytest.approx(table.purity_shuffled[i])
        assert shown["lift_token"].value == pytest.approx(table.lift[i])
        assert shown["label_entropy_token"].value == pytest.approx(table.label_entropy[i])
    quiet = set(range(16)) - set(table.latents.tolist())
    assert all(isnan(record.latents[latent].scores["purity_token"].value) for latent in quiet)


def test_every_record_has_the_same_scores(record):
    assert len({tuple(latent.scores) for latent in record.latents}) == 1
    assert {"purity_token", "lift_feature", "mutual_information_position", "feature_f1"} <= set(
        record.latents[0].scores
    )


def test_true_features_are_told_without_directions(record, world):
    matched = [latent.feature for latent in record.latents if latent.feature is not None]
    assert matched
    assert all(feature.name == world.feature_names[feature.index] and feature.cosine is None for feature in matched)


def test_a_subset_gets_the_records_of_the_whole(record, world, sae):
    some = describe_latents(sae, world, n_tokens=SAMPLES, latents=[9, 3])
    assert [latent.latent for latent in some.latents] == [9, 3]
    for ours in some.latents:
        theirs = record.latents[ours.latent]
        assert repr(ours.examples) == repr(theirs.examples)
        for title, shown in theirs.related.items():
            assert [n.index for n in ours.related[title]] == [n.index for n in shown]
            assert [n.value for n in ours.related[title]] == pytest.approx([n.value for n in shown])
        assert repr(ours.scores) == repr(theirs.scores)
        assert (ours.density, ours.histogram, repr(ours.feature)) == (
            theirs.density,
            theirs.histogram,
            repr(theirs.feature),
        )


def test_two_calls_give_the_same_and_leave_the_sae_as_it_was(record, world, sae):
    sae.train()
    again = describe_latents(sae, world, n_tokens=SAMPLES)
    assert sae.training
    sae.eval()
    assert repr(again) == repr(record)


def test_lists_and_notes_can_be_added(world, sae):
    promoted = {3: (Neighbour(index=1, label=" cat", value=2.5),)}
    found = describe_latents(
        sae,
        world,
        n_tokens=200,
        latents=[3, 4],
        extra_related={"promoted tokens": promoted},
        notes={"promoted tokens": "direct effect"},
        title="mine",
    )
    assert found.latents[0].related["promoted tokens"] == promoted[3]
    assert "promoted tokens" not in found.latents[1].related
    assert found.notes["promoted tokens"] == "direct effect"
    assert "fires together with" in found.notes
    assert found.title == "mine"


def test_the_provenance_is_json(record):
    told = json.loads(json.dumps(record.provenance))
    assert told["sae"]["variant"] == "TopKSAE"
    assert told["source"] == {"name": "TextWorld"}


# Other sources


def test_a_known_world_tells_features_with_cosines():
    source = SuperpositionSource(hierarchical_world(0, n_parents=3, n_independent=3, d_in=8))
    record = describe_latents(working_sae(JumpReluSAE), source, n_tokens=3000, batch_size=500)
    matched = [latent.feature for latent in record.latents if latent.feature is not None]
    assert record.n_samples == 3000
    assert matched
    assert all(-1 <= feature.cosine <= 1 for feature in matched)
    example = next(latent.examples[0] for latent in record.latents if latent.examples)
    assert example.tokens == ()
    assert all(name in source.feature_names and value > 0 for name, value in example.truth)
    assert "feature_cosine" in record.latents[0].scores


def test_arrays_have_samples_for_examples():
    x = torch.randn(400, 8, generator=generator_for(0, "array"))
    source = ArraySource(x, document_ids=torch.arange(400) // 4, config=ArraySource.Config(eval_share=0.5))
    record = describe_latents(working_sae(TopKSAE), source, n_tokens=10_000)
    assert record.n_samples == len(source.rows["eval"])
    example = next(latent.examples[0] for latent in record.latents if latent.examples)
    assert (example.tokens, example.position, example.truth, len(example.activations)) == ((), None, (), 1)
    assert example.document is not None
    assert record.latents[0].scores == {}
    assert record.latents[0].feature is None
    assert "correlated neurons" not in record.latents[0].related


def test_a_site_of_a_language_model_is_described():
    hooks = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_pre", "blocks.0.hook_attn_out")
    text = Text.read(tiny_model().tokenizer, TextConfig(path=str(tiny_text_file()), context_length=16, eval_share=0.1))
    config = TransformerSource.Config(hooks=hooks[1:], rows_per_forward=4, shuffle_buffer="512 tokens")
    whole = TransformerSource(tiny_model(), text, config)
    sae = TopKSAE(TopKSAE.Config(d_in=32, d_sae=24, k=3)).eval()
    with pytest.raises(ValueError, match="site_of"):
        describe_latents(sae, whole, n_tokens=100)
    record = describe_latents(sae, site_of(whole, hooks[1]), n_tokens=600)
    alive = [latent for latent in record.latents if latent.examples]
    assert len(alive) > 5
    for latent in alive:
        for example in latent.examples:
            assert 0 <= example.peak < len(example.tokens) == len(example.activations) <= 21
            assert example.activations[example.peak] != 0
            assert example.tokens[example.peak] != "<|endoftext|>"
        assert all(abs(neuron.value) <= 1 + 1e-9 for neuron in latent.related["correlated neurons"])
    assert "blocks.0.mlp.hook_post" in record.notes["correlated neurons"]
    assert any("<|endoftext|>" in example.tokens for latent in alive for example in latent.examples)


READ, WRITTEN = "blocks.0.mlp.hook_post", "blocks.0.hook_mlp_out"


@pytest.fixture(scope="module")
def mlp_source() -> TransformerSource:
    text = Text.read(tiny_model().tokenizer, TextConfig(path=str(tiny_text_file()), context_length=16, eval_share=0.1))
    config = TransformerSource.Config(hooks=(READ, WRITTEN), rows_per_forward=4, shuffle_buffer="512 tokens")
    return TransformerSource(tiny_model(), text, config)


def test_a_transcoder_promotes_tokens_where_it_writes(mlp_source):
    sae = TopKTranscoder(TopKTranscoder.Config(d_in=mlp_source.sites[READ], d_out=32, d_sae=12, k=3)).eval()
    record = describe_latents(sae, Place(READ, WRITTEN).seen(mlp_source), n_tokens=300)
    dictionary = TopKSAE(TopKSAE.Config(d_in=32, d_sae=12, k=3)).eval()
    with torch.no_grad():
        dictionary.W_dec.copy_(sae.W_dec)
    same_rows = direct_logit_effects(dictionary, site_of(mlp_source, WRITTEN), range(12))
    for latent in record.latents:
        assert latent.related["promoted tokens"] == same_rows[latent.latent][0]
    with pytest.raises(ValueError, match="its latents are no part of what it reads"):
        effect_agreement(sae, Place(READ, WRITTEN).seen(mlp_source), [0])


def test_a_crosscoder_is_described_at_all_its_sites(mlp_source):
    widths = tuple(mlp_source.sites.values())
    sae = TopKCrosscoder(TopKCrosscoder.Config(d_in=sum(widths), site_widths=widths, d_sae=12, k=3)).eval()
    record = describe_latents(sae, mlp_source, n_tokens=300)
    assert record.n_samples == 300
    assert any(latent.examples for latent in record.latents)
    assert not any("promoted tokens" in latent.related for latent in record.latents)


def test_dictionaries_that_are_no_sae_are_described():
    source = TextWorld(n_rows=20)
    record = describe_latents(Identity(8), source, n_tokens=100)
    z = source.samples(100)["activations"]
    assert [latent.density for latent in record.latents] == (z != 0).double().mean(0).tolist()
    assert record.provenance["sae"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": [16]}, "latents 0 to 15"),
        ({"latents": [1, 1]}, "each once"),
        ({"latents": []}, "at least one"),
        ({"n_tokens": 0}, "at least 1"),
        ({"n_neighbours": -1}, "at least 0"),
    ],
)
def test_impossible_requests_are_refused(world, sae, changes, message):
    with pytest.raises(ValueError, match=message):
        describe_latents(sae, world, **({"n_tokens": 10} | changes))


def test_an_sae_of_another_width_is_refused(world):
    with pytest.raises(ValueError, match="reads 4 dimensions"):
        describe_latents(TopKSAE(TopKSAE.Config(d_in=4, d_sae=8, k=2)), world, n_tokens=10)
