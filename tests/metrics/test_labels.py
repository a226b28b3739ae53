"""Labellings give the classes that hold, as rows."""

import pytest
import torch
from fake_splicing import FakeSplicingSource
from tiny_models import loaded, tiny_text_file
from toy import ToySource

from sae_toolkit.activations import Text, TextConfig, TransformerSource
from sae_toolkit.activations.source import ActivationBatch
from sae_toolkit.activations.superposition import SuperpositionSource
from sae_toolkit.ground_truth.presets import dataset_a
from sae_toolkit.metrics.labels import (
    documents,
    first_letters,
    labellings_for,
    linguistic,
    position_buckets,
    select_rows,
    token_classes,
    token_identity,
    true_features,
)
from sae_toolkit.sparse_rows import SparseRows

TEXTS = (" the", "ing", ".", " cats", " nor")


def batch_of(**labels):
    n = len(next(iter(labels.values())))
    labels = {name: torch.tensor(values) for name, values in labels.items()}
    return ActivationBatch(activations=torch.zeros(n, 1), **labels)


def held(labelling, batch):
    rows = labelling.of(batch)
    assert rows.shape == (len(batch.activations), len(labelling.classes))
    return [[labelling.classes[i] for i in row.nonzero().flatten()] for row in rows.to_dense()]


def test_tokens_have_classes():
    batch = batch_of(token_ids=[3, 0, 4, 2])
    assert held(token_identity(TEXTS), batch) == [[" cats"], [" the"], [" nor"], ["."]]
    assert held(token_classes(TEXTS), batch) == [["word_start"], ["word_start"], ["word_start"], ["punctuation"]]
    assert held(first_letters(TEXTS), batch) == [["c"], ["t"], ["n"], ["no_letter"]]
    assert held(linguistic(TEXTS), batch) == [["plural_s"], ["function_word"], ["function_word", "negation"], []]


def test_positions_double():
    batch = batch_of(positions=[0, 1, 2, 3, 4, 7, 8, 127, 128, 10**6])
    names = ["0", "1", "2_to_3", "2_to_3", "4_to_7", "4_to_7", "8_to_15", "64_to_127", "128_to_255"]
    assert held(position_buckets(), batch) == [[name] for name in [*names, "65536_and_more"]]


def test_documents_are_told_apart():
    rows = documents().of(batch_of(document_ids=[5, 5, 4096 + 6]))
    assert rows.indices.tolist() == [5, 5, 6]


def test_true_features_that_fire():
    coefficients = SparseRows.from_dense(torch.tensor([[0.0, 2.0, -1.0], [1.0, 0.0, 3.0]]))
    batch = ActivationBatch(activations=torch.zeros(2, 1), coefficients=coefficients)
    assert held(true_features(("a", "b", "c")), batch) == [["b"], ["a", "c"]]


@pytest.mark.parametrize("labelling", [token_identity(TEXTS), position_buckets(), documents()], ids=lambda x: x.name)
def test_what_the_batch_lacks_is_named(labelling):
    with pytest.raises(ValueError, match=f"Labelling {labelling.name} needs .*=None"):
        labelling.of(ActivationBatch(activations=torch.zeros(2, 1)))


def test_an_id_without_a_text_is_refused():
    with pytest.raises(ValueError, match="token id 5 given, but only 5"):
        token_identity(TEXTS).of(batch_of(token_ids=[0, 5]))


def test_rows_are_selected_like_dense_ones():
    dense = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    numbers = torch.tensor([2, 0, 1, 0])
    assert select_rows(SparseRows.from_dense(dense), numbers).to_dense().equal(dense[numbers])


def test_each_source_gets_what_it_can_answer():
    assert labellings_for(ToySource()) == labellings_for(FakeSplicingSource()) == []
    assert [one.name for one in labellings_for(SuperpositionSource(dataset_a(seed=0)))] == ["feature"]
    model = loaded("tiny")
    text = Text.read(model.tokenizer, TextConfig(path=str(tiny_text_file()), context_length=16, eval_share=0.3))
    source = TransformerSource(model, text, TransformerSource.Config(hooks=("blocks.0.hook_resid_pre",)))
    batch = next(source.stream(8, seed=0, split="eval"))
    found = labellings_for(source)
    assert {one.name for one in found} == {"token", "token_class", "first_letter", "linguistic", "position", "document"}
    for labelling in found:
        rows = labelling.of(batch)
        assert rows.n_rows == 8
        assert rows.n_columns == len(labelling.classes)
        if labelling.exclusive:
            assert rows.offsets.diff().tolist() == [1] * 8
