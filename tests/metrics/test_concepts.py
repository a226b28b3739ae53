"""Concepts of a user's file."""

import json

import pytest
import torch

from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.metrics.concepts import concept_labelling, read_concepts

TEXTS = (" not", "not", " Not", " 12", "cat", "ing")
CONCEPTS = {
    "negation": {"words": ["NOT", "never"]},
    "starting": {"tokens": [" not", " Not"]},
    "number": {"pattern": " ?[0-9]+", "tokens": ["cat"]},
}


def written(tmp_path, contents):
    path = tmp_path / "concepts.json"
    path.write_text(contents if isinstance(contents, str) else json.dumps(contents), encoding="utf-8")
    return path


def test_which_tokens_belong(tmp_path):
    labelling = concept_labelling(read_concepts(written(tmp_path, CONCEPTS)), TEXTS)
    assert labelling.classes == ("negation", "starting", "number")
    batch = ActivationBatch(activations=torch.zeros(6, 1), token_ids=torch.arange(6))
    expected = [[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert labelling.of(batch).to_dense().tolist() == expected
    assert not labelling.exclusive


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("{", "is no JSON"),
        ([], "at least one"),
        ({}, "at least one"),
        ({"a": ["not"]}, "'a' is \\['not'\\]"),
        ({"a": {"word": ["not"]}}, "unknown field 'word'. Did you mean 'words'"),
        ({"a": {}}, "'a' is empty"),
        ({"a": {"words": []}}, "'a' is empty"),
        ({"a": {"words": "not"}}, "words of 'a' must be a list"),
        ({"a": {"tokens": [""]}}, "tokens of 'a' must be a list of texts, none empty"),
        ({"a": {"pattern": "("}}, "the pattern .* of 'a' is none"),
        ({"a": {"pattern": 3}}, "must be a text"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, contents, message):
    with pytest.raises(ValueError, match=message):
        read_concepts(written(tmp_path, contents))


def test_a_concept_without_tokens_is_refused(tmp_path):
    concepts = read_concepts(written(tmp_path, {"a": {"words": ["cat"]}, "b": {"words": ["zebra"]}}))
    with pytest.raises(ValueError, match="no token belongs to 'b'"):
        concept_labelling(concepts, TEXTS)
