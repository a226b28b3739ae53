"""Latents in other tools' forms: their field names, and values worked out by hand."""

import json
from dataclasses import replace

from latent_records import capitals, hand_record

from sae_toolkit.report import ExportNames, write_neuronpedia_json, write_saedashboard_json

NAMES = ExportNames(model_id="gpt2-small", layer=6, sae_set="res-jb")
FEATURE_KEYS = {
    "feature_index", "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1",
    "correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson",
    "correlated_features_indices", "correlated_features_l1", "correlated_features_pearson",
    "neg_str", "neg_values", "pos_str", "pos_values", "frac_nonzero",
    "freq_hist_data_bar_values", "freq_hist_data_bar_heights",
    "logits_hist_data_bar_heights", "logits_hist_data_bar_values", "decoder_weights_dist", "activations",
}  # fmt: skip
"""Arguments of SAEDashboard's feature but n_prompts_total, n_tokens_in_prompt and dataset."""
ACTIVATION_KEYS = {"bin_min", "bin_max", "bin_contains", "tokens", "values", "qualifying_token_index"}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_saedashboard_gets_its_batch(tmp_path):
    batch = read(write_saedashboard_json(hand_record(), tmp_path / "batch-0.json", NAMES))
    assert {key: batch[key] for key in ("model_id", "layer", "sae_set")} == {
        "model_id": "gpt2-small",
        "layer": 6,
        "sae_set": "res-jb",
    }
    first, second, dead = batch["features"]
    assert set(first) == set(second) == set(dead) == FEATURE_KEYS
    assert first["feature_index"] == 0
    assert (first["pos_str"], first["pos_values"]) == ([" France"], [2.5])
    assert (first["neg_str"], first["neg_values"]) == ([" mud"], [-1.25])
    assert (first["correlated_neurons_indices"], first["correlated_neurons_pearson"]) == ([11], [0.75])
    assert first["frac_nonzero"] == 0.0125
    assert first["freq_hist_data_bar_values"] == [0.5, 2.5]  # the middles of 0 to 1 and 1 to 4
    assert first["freq_hist_data_bar_heights"] == [20, 5]
    assert (dead["frac_nonzero"], dead["freq_hist_data_bar_values"], dead["activations"]) == (0, [], [])


def test_saedashboard_activations_say_their_bin_and_peak(tmp_path):
    batch = read(write_saedashboard_json(hand_record(), tmp_path / "batch.json"))
    top, band = batch["features"][0]["activations"]
    assert set(top) == set(band) == ACTIVATION_KEYS
    assert (top["bin_min"], top["bin_max"], top["bin_contains"]) == (-1, 4, -1)
    assert (band["bin_min"], band["bin_max"], band["bin_contains"]) == (0, 0, 0)
    assert top["tokens"] == ["<bos>", " in", " Paris", "\n"]
    assert top["values"] == [0, 0, 4, 0.123]  # the special token that was left out counts as 0
    assert top["qualifying_token_index"] == 2
    assert batch["features"][1]["activations"] == []  # a sample without tokens has no text to show
    assert set(batch) == {"features"}  # no names were given, none is made up


def test_neuronpedia_gets_its_features(tmp_path):
    first, _, dead = read(write_neuronpedia_json(hand_record(), tmp_path / "features.json", NAMES))
    assert (first["modelId"], first["layer"], first["index"]) == ("gpt2-small", "6-res-jb", "0")
    assert first["sourceSetName"] == "res-jb"
    assert first["maxActApprox"] == 4
    assert first["topkCosSimIndices"] == [0, 2, 3]
    assert first["topkCosSimValues"] == [1, 0.5, -0.25]
    assert (first["pos_str"], first["neg_values"]) == ([" France"], [-1.25])
    assert first["activations"][0] == {
        "modelId": "gpt2-small",
        "layer": "6-res-jb",
        "index": "0",
        "tokens": ["<bos>", " in", " Paris", "\n"],
        "values": [0, 0, 4, 0.123],
        "maxValue": 4,
        "maxValueTokenIndex": 2,
        "minValue": 0,
        "qualifyingTokenIndex": 2,
    }
    assert (dead["maxActApprox"], dead["topkCosSimIndices"], dead["activations"]) == (0, [], [])


def test_neuronpedia_features_keep_silent_about_what_nobody_said(tmp_path):
    first = read(write_neuronpedia_json(hand_record(), tmp_path / "features.json"))[0]
    assert not {"modelId", "layer", "sourceSetName", "creatorId", "createdAt", "vector"} & set(first)
    assert set(first["activations"][0]) & {"modelId", "layer"} == set()


def test_a_layer_without_its_set_names_no_source(tmp_path):
    first = read(write_neuronpedia_json(hand_record(), tmp_path / "features.json", ExportNames(layer=6)))[0]
    assert "layer" not in first


def test_small_activations_are_not_rounded_away(tmp_path):
    example = replace(capitals().examples[1], activations=(0.0, 0.00012345, 0.0))
    record = replace(hand_record(), latents=(replace(capitals(), examples=(example,)),))
    batch = read(write_saedashboard_json(record, tmp_path / "batch.json"))
    assert batch["features"][0]["activations"][0]["values"] == [0, 0.000123, 0]
