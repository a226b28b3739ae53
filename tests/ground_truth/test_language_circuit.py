from sae_toolkit.ground_truth import Language, LanguageCircuit, LanguageConfig


def test_words_belong_together():
    language = Language(LanguageConfig(n_classes=4, header_events=2))
    words, circuit = language.lexicon.words, LanguageCircuit.of(language)
    spoken = [
        (words[e], words[n], words[v]) for e, n, v in zip(circuit.events, circuit.nouns, circuit.values, strict=True)
    ]
    assert len(spoken) == 16
    assert spoken[0] == ("kindled", "lamp", "bright")
    assert spoken[6] == ("bolted", "door", "locked")
    assert [words[thing] for thing in circuit.things] == ["lamp", "door", "river", "bread"]
    same = circuit.same_class()
    assert same.shape == (4, 16)
    assert same.sum(1).tolist() == [4] * 4
    assert same[1].nonzero()[:, 0].tolist() == [4, 5, 6, 7]
    assert [words[token] for token in circuit.candidates[-2:]] == ["burnt", "ordinary"]
    asked = circuit.skip_trigrams()
    assert [words[asked[kind][6]] for kind in ("sources", "outputs")] == ["bolted", "locked"]
    assert [words[thing] for thing in asked["destinations"]] == ["lamp", "door", "river", "bread"]
    assert asked["attends"].equal(same)
    assert set(asked) - set(circuit.answers()) == {"sources", "destinations"}
