import numpy as np
import pytest
import torch

from sae_toolkit.activations.packing import Window

EOS, BOS = 9, 0


def window(documents, numbers, context_length, bos=None):
    arrays = [np.array(ids, dtype=np.int32) for ids in documents]
    return Window(arrays, numbers, context_length=context_length, bos_token_id=bos, next_start=None)


def all_rows(packed):
    tokens, document_ids = packed.rows(torch.arange(packed.n_rows))
    return tokens.tolist(), document_ids.tolist()


THREE = [[1, 2, EOS], [3, EOS], [4, 5, 6, 7, EOS]]  # joined: 1 2 E 3 | E 4 5 6 | 7 E
NUMBERS = [2, 5, 6]


def test_documents_are_joined_cut_and_known_by_their_numbers():
    tokens, document_ids = all_rows(window(THREE, NUMBERS, 4))
    assert tokens == [[1, 2, EOS, 3], [EOS, 4, 5, 6]]  # the last two tokens fill no row
    assert document_ids == [[2, 2, 2, 5], [5, 6, 6, 6]]


def test_every_row_starts_with_bos_and_the_document_of_the_token_after_it():
    tokens, document_ids = all_rows(window(THREE, NUMBERS, 4, bos=BOS))  # three tokens of the documents per row
    assert tokens == [[BOS, 1, 2, EOS], [BOS, 3, EOS, 4], [BOS, 5, 6, 7]]
    assert document_ids == [[2, 2, 2, 2], [5, 5, 5, 6], [6, 6, 6, 6]]


def test_rows_come_in_the_order_asked_for():
    packed = window([list(range(1, 9))], [0], 2)
    assert packed.rows(torch.tensor([3, 0, 3])).tokens.tolist() == [[7, 8], [1, 2], [7, 8]]


def test_rows_are_int64():
    rows = window(THREE, NUMBERS, 4, bos=BOS).rows(torch.tensor([0]))
    assert (rows.tokens.dtype, rows.document_ids.dtype) == (torch.int64, torch.int64)


def test_no_rows_may_be_asked_for():
    assert window(THREE, NUMBERS, 4).rows(torch.tensor([], dtype=torch.int64)).tokens.shape == (0, 4)


def test_a_window_without_documents_has_no_rows():
    packed = window([], [], 4)
    assert (packed.n_rows, packed.n_tokens, packed.n_documents) == (0, 0, 0)


def test_counts_include_the_tokens_that_fill_no_row():
    packed = window(THREE, NUMBERS, 4)
    assert (packed.n_rows, packed.n_tokens, packed.n_documents) == (2, 10, 3)


@pytest.mark.parametrize("indices", [[2], [-1], [0, 5]])
def test_a_row_that_is_not_there_is_refused(indices):
    with pytest.raises(ValueError, match="the window has rows 0 to 1"):
        window(THREE, NUMBERS, 4).rows(torch.tensor(indices))


def test_random_documents_agree_with_a_loop_over_tokens():
    draw = np.random.default_rng(0)
    documents = [draw.integers(1, 9, size=draw.integers(1, 12)).tolist() for _ in range(50)]
    numbers = np.cumsum(draw.integers(1, 4, size=50)).tolist()
    flat = [(token, number) for ids, number in zip(documents, numbers, strict=True) for token in ids]
    rows = [flat[start : start + 7] for start in range(0, len(flat) - 6, 7)]
    assert all_rows(window(documents, numbers, 7)) == (
        [[token for token, _ in row] for row in rows],
        [[number for _, number in row] for row in rows],
    )
