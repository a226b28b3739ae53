"""Controls are found again by what they are made of, and by nothing less."""

import json
from math import isnan

import pytest
import torch
from toy import ToySource

from sae_toolkit import TopKSAE
from sae_toolkit.metrics import ControlStore, FixedDictionary, LinearTopK, Score, Scoring, Sparsity, score_with_controls
from sae_toolkit.metrics.controls import random_directions

SCORES = {
    "plain": Score(value=0.5, n=3, id="plain/v1"),
    "nothing": Score(value=float("nan"), n=0, id="nothing/v2"),
    "whole": Score(value=0.1, low=0.0, high=0.2, floor=0.0, ceiling=1.0, n=7, id="whole/v1"),
}


def test_scores_come_back_as_they_were(tmp_path):
    store = ControlStore(tmp_path / "new folder")
    assert store.scores({"a": 1}) is None
    store.keep_scores({"a": 1}, SCORES)
    found = store.scores({"a": 1})
    assert found is not None
    assert list(found) == list(SCORES)
    assert found["plain"] == SCORES["plain"]
    assert found["whole"] == SCORES["whole"]
    assert isnan(found["nothing"].value)
    assert store.scores({"a": 2}) is None


def test_directions_are_built_once(tmp_path):
    store, built = ControlStore(tmp_path), []

    def build():
        built.append(1)
        return torch.eye(3).T

    assert torch.equal(store.directions({"width": 3}, build), torch.eye(3))
    assert torch.equal(ControlStore(tmp_path).directions({"width": 3}, build), torch.eye(3))
    assert len(built) == 1
    store.directions({"width": 4}, build)
    assert len(built) == 2


def test_a_damaged_file_is_an_error(tmp_path):
    store = ControlStore(tmp_path)
    store.keep_scores({}, SCORES)
    next(tmp_path.glob("scores_*.json")).write_text("{")
    with pytest.raises(ValueError, match="scores_"):
        store.scores({})


def test_another_dictionary_sample_or_question_is_another_control(tmp_path):
    def control(seed, k):
        return FixedDictionary(random_directions(6, 4, seed=seed), coder=LinearTopK(k))

    def name(control, **changes):
        scoring = Scoring(**{"n_samples": 10, "store": ControlStore(tmp_path), **changes})
        return json.dumps(scoring.made_of(control, ToySource()), sort_keys=True)

    same = name(control(0, 2))
    assert same == name(control(0, 2))
    others = {
        name(control(1, 2)),
        name(control(0, 3)),
        name(control(0, 2), n_samples=11),
        name(control(0, 2), seed=1),
        name(control(0, 2), loss_tokens=9),
        name(control(0, 2), metrics=lambda source, loss_tokens: [Sparsity()]),
    }
    assert same not in others
    assert len(others) == 6


def test_floors_are_not_computed_twice_and_stay_the_same(tmp_path, monkeypatch):
    sae = TopKSAE(TopKSAE.Config(d_in=ToySource().d_in, d_sae=12, k=2), seed=0).eval()
    passes = []
    score = Scoring.score

    def counted(self, dictionaries, source):
        passes.append(sorted(dictionaries))
        return score(self, dictionaries, source)

    monkeypatch.setattr(Scoring, "score", counted)
    asked = {"n_samples": 300, "leave_out": ("floor/ica",)}
    plain = score_with_controls({"a": sae}, ToySource(), **asked)
    first = score_with_controls({"a": sae}, ToySource(), **asked, store=ControlStore(tmp_path))
    again = score_with_controls({"a": sae}, ToySource(), **asked, store=ControlStore(tmp_path))
    assert repr(plain) == repr(first) == repr(again)
    assert [len(names) > 1 for names in passes] == [False, True, False, True, False]  # the SAE, then its controls
