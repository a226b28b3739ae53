import pytest
import torch

from sae_toolkit.ground_truth import Language, LanguageConfig, LanguageFeatures, draw_documents, read_documents

WORDS = "<bos> Ada kindled bolted . lamp bright gladly ! ( sailor near bakers sings ! )"


@pytest.fixture(scope="module")
def language():
    return Language(LanguageConfig(context_length=16, header_events=2))


def names_at(features, rows, position):
    dense = rows.to_dense()[0, position]
    return {features.names[i]: float(dense[i]) for i in dense.nonzero()[:, 0].tolist()}


def test_what_holds_by_hand(language):
    features = LanguageFeatures(language)
    ids = torch.tensor([[language.lexicon.words.index(w) for w in WORDS.split()]])
    rows = features.coefficients(ids)
    at_noun = names_at(features, rows, 5)
    at_noun = {name: value for name, value in at_noun.items() if not name.startswith(("topic", "mood"))}
    assert at_noun == {
        "value: lamp bright": 1.0,
        "tone: good": 1.0,
        "speaker: Ada": 1.0,
        "slot: value": 1.0,
        "token: lamp": 1.0,
        "previous: .": 1.0,
    }
    inside = names_at(features, rows, 12)
    for name in ("number: singular", "depth: at least 1", "slot: verb", "token: bakers", "previous: near"):
        assert inside[name] == 1.0
    assert not any(name.startswith(("value", "tone")) or name == "depth: at least 2" for name in inside)


def test_an_inferred_value_holds_with_its_posterior_where_that_is_above_one_half(language):
    tokens = draw_documents(language, 50, seed=0).tokens
    features = LanguageFeatures(language, ("topic", "mood"))
    dense = features.coefficients(tokens).to_dense()
    reading = read_documents(language, tokens)
    for d in range(50):
        for t in range(16):
            for topic in range(8):
                b = float(reading.topic[d, t, topic])
                assert float(dense[d, t, topic]) == (pytest.approx(b) if b > 0.5 else 0.0)
    assert (dense[..., features.columns["mood"]] > 0.5).any()


def test_children_fire_only_with_their_parents():
    language = Language()
    features = LanguageFeatures(language)
    on = features.coefficients(draw_documents(language, 400, seed=2).tokens).to_dense().flatten(0, 1) > 0
    pairs = features.hierarchy_pairs()
    assert len(pairs) == 64 * 2 + 1
    assert on[:, pairs[:, 1]].any(0).sum() > 60
    assert not (on[:, pairs[:, 1]] & ~on[:, pairs[:, 0]]).any()
    assert (on[:, pairs[:, 0]] & ~on[:, pairs[:, 1]]).any(0).all()  # and a parent fires without this child


def test_families_can_be_chosen_and_keep_their_order(language):
    features = LanguageFeatures(language, ("depth", "tone"))
    assert features.names == ["tone: good", "tone: bad", "depth: at least 1", "depth: at least 2"]
    assert features.columns == {"tone": slice(0, 2), "depth": slice(2, 4)}
    assert features.hierarchy_pairs().tolist() == [[2, 3]]
    with pytest.raises(ValueError, match="weather"):
        LanguageFeatures(language, ("weather",))
