import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sae_toolkit.activations import ArraySource
from sae_toolkit.activations.array_files import hash_share

REAL = Path(__file__).parents[2].parent / "shared/data/activations"
N = 200
ROWS = torch.arange(N * 3.0).reshape(N, 3)  # row i starts with 3 i, so that a row tells its index
DOCUMENTS = torch.arange(N) // 5  # 40 documents of 5 rows
POSITIONS = torch.arange(N) % 5
TOKENS = torch.arange(N) % 7  # token 0 exists and is not special


def small_source(folder):
    """For the contract tests: rows of a .npy file."""
    rows = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    np.save(folder / "rows.npy", rows)
    return ArraySource.from_file(folder / "rows.npy", config=ArraySource.Config(eval_share=0.3))


def source(**changes):
    config = {
        key: changes.pop(key) for key in ("eval_share", "exclude_positions", "exclude_token_ids") if key in changes
    }
    labels = {"token_ids": TOKENS, "positions": POSITIONS, "document_ids": DOCUMENTS}
    return ArraySource(ROWS, **(labels | changes), config=ArraySource.Config(**({"eval_share": 0.3} | config)))


def indices(batches):
    return [int(row) // 3 for batch in batches for row in batch.activations[:, 0]]


def take(stream, n):
    return [next(stream) for _ in range(n)]


def test_labels_travel_with_their_rows():
    batch = next(source().stream(16, seed=0, split="train"))
    rows = torch.tensor(indices([batch]))
    assert torch.equal(batch.activations, ROWS[rows])
    assert torch.equal(batch.token_ids, TOKENS[rows])
    assert torch.equal(batch.positions, POSITIONS[rows])
    assert torch.equal(batch.document_ids, DOCUMENTS[rows])


def test_absent_labels_are_none():
    batch = next(ArraySource(ROWS).stream(16, seed=0, split="train"))
    assert (batch.token_ids, batch.positions, batch.document_ids, batch.coefficients) == (None,) * 4


def test_no_document_is_in_both_splits():
    s = source()
    train, held_out = (set(DOCUMENTS[s.rows[split]].tolist()) for split in ("train", "eval"))
    assert train.isdisjoint(held_out)
    assert train | held_out == set(range(40))
    assert train
    assert held_out


def test_without_documents_no_row_is_in_both_splits():
    s = ArraySource(ROWS, config=ArraySource.Config(eval_share=0.5))
    assert sorted(s.rows["train"].tolist() + s.rows["eval"].tolist()) == list(range(N))
    assert s.describe()["split_by"] == "row"


def test_a_document_keeps_its_split_when_others_are_added():
    few = ArraySource(ROWS[:100], document_ids=DOCUMENTS[:100], config=ArraySource.Config(eval_share=0.3))
    assert few.rows["eval"].tolist() == [row for row in source().rows["eval"].tolist() if row < 100]


def test_hash_shares_are_uniform():
    shares = hash_share(torch.arange(-5000, 5000))
    assert ((shares >= 0) & (shares < 1)).all()
    counts = torch.histc(shares, bins=10, min=0, max=1)  # 1000 expected in each, standard deviation 30
    assert (counts - 1000).abs().max() < 135


def test_each_train_pass_gives_every_row_once_in_a_new_order():
    s = source()
    n = len(s.rows["train"])
    stream = s.stream(10, seed=0, split="train")
    given = indices(take(stream, math.ceil(3 * n / 10)))
    passes = [given[i * n : (i + 1) * n] for i in range(3)]
    assert all(sorted(p) == s.rows["train"].tolist() for p in passes)
    assert passes[0] != passes[1] != passes[2]


def test_train_batches_are_always_full():
    assert {len(b.activations) for b in take(source().stream(33, seed=0, split="train"), 20)} == {33}


def test_eval_is_one_pass_in_the_order_of_the_array():
    s = source()
    stream = s.stream(16, seed=0, split="eval")
    assert indices(stream) == s.rows["eval"].tolist()
    with pytest.raises(StopIteration):
        next(stream)


def test_the_seed_orders_training_and_leaves_eval_alone():
    s = source()
    train = [indices([next(s.stream(16, seed=seed, split="train"))]) for seed in (0, 0, 1)]
    assert train[0] == train[1] != train[2]
    assert indices(s.stream(16, seed=0, split="eval")) == indices(s.stream(16, seed=1, split="eval"))


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize("n_before", [0, 1, 4, 15])
def test_resumed_equals_uninterrupted(split, n_before):
    stream = source(eval_share=0.5).stream(10, seed=5, split=split)
    for _ in range(n_before):
        next(stream, None)
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = source(eval_share=0.5).stream(10, seed=5, split=split)
    resumed.load_state_dict(state)
    expected, found = ([next(s, None) for _ in range(30)] for s in (stream, resumed))
    for a, b in zip(expected, found, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (torch.equal(a.activations, b.activations) and a.excluded == b.excluded)


@pytest.mark.parametrize(
    "other",
    [
        lambda: source().stream(11, seed=0, split="train"),
        lambda: source().stream(10, seed=1, split="train"),
        lambda: source().stream(10, seed=0, split="eval"),
        lambda: source(eval_share=0.4).stream(10, seed=0, split="train"),
        lambda: source(exclude_positions=(1,)).stream(10, seed=0, split="train"),
        lambda: source(exclude_token_ids=(1,)).stream(10, seed=0, split="train"),
        lambda: source(document_ids=DOCUMENTS + 1).stream(10, seed=0, split="train"),
        lambda: ArraySource(ROWS + 1).stream(10, seed=0, split="train"),
    ],
)
def test_the_state_of_another_stream_is_refused(other):
    state = source().stream(10, seed=0, split="train").state_dict()
    with pytest.raises(ValueError, match="Open the stream that was saved"):
        other().load_state_dict(state)


def test_excluded_rows_never_appear_and_are_counted_once():
    s = source(exclude_positions=(0, 4), exclude_token_ids=(0, 6))
    hit_position = (POSITIONS == 0) | (POSITIONS == 4)
    hit_token = ((TOKENS == 0) | (TOKENS == 6)) & ~hit_position
    used = torch.cat([s.rows["train"], s.rows["eval"]])
    assert sorted(used.tolist()) == (~hit_position & ~hit_token).nonzero()[:, 0].tolist()
    counts = s.describe()["excluded"]
    assert sum(c["position"] for c in counts.values()) == int(hit_position.sum())
    assert sum(c["token_id"] for c in counts.values()) == int(hit_token.sum())


def test_token_id_zero_is_kept_unless_excluded():
    assert 0 in TOKENS[source(exclude_token_ids=(6,)).rows["train"]]
    assert 0 not in TOKENS[source(exclude_token_ids=(0,)).rows["train"]]


def test_each_pass_reports_its_excluded_rows_once():
    s = source(exclude_positions=(0,))
    n, expected = len(s.rows["train"]), s.describe()["excluded"]["train"]["position"]
    batches = take(s.stream(10, seed=0, split="train"), 2 * n // 10)  # well into the second pass, not beyond
    assert sum(b.excluded["position"] for b in batches) == 2 * expected
    held_out = list(s.stream(10, seed=0, split="eval"))
    assert sum(b.excluded["position"] for b in held_out) == s.describe()["excluded"]["eval"]["position"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_becomes_float32(dtype):
    s = ArraySource(torch.eye(8, dtype=dtype), config=ArraySource.Config(eval_share=0.0))
    batch = next(s.stream(8, seed=0, split="train"))
    assert batch.activations.dtype == torch.float32
    assert torch.equal(batch.activations.sum(0), torch.ones(8))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_npy_files_are_read(dtype, tmp_path):
    np.save(tmp_path / "a.npy", (ROWS[:20] / 4).numpy().astype(dtype))
    s = ArraySource.from_file(tmp_path / "a.npy", positions=POSITIONS[:20], config=ArraySource.Config(eval_share=1.0))
    batch = next(s.stream(20, seed=0, split="eval"))
    assert torch.equal(batch.activations, ROWS[:20] / 4)
    assert torch.equal(batch.positions, POSITIONS[:20])


def test_npy_files_are_never_changed(tmp_path):
    np.save(tmp_path / "a.npy", ROWS.numpy())
    before = (tmp_path / "a.npy").read_bytes()
    ArraySource.from_file(tmp_path / "a.npy").activations.zero_()
    assert (tmp_path / "a.npy").read_bytes() == before


def test_safetensors_files_bring_their_labels(tmp_path):
    labels = {"token_ids": TOKENS.int(), "positions": POSITIONS.int(), "document_ids": DOCUMENTS.int()}
    save_file({"activations": ROWS.half(), **labels}, tmp_path / "a.safetensors")
    s = ArraySource.from_file(
        tmp_path / "a.safetensors", config=ArraySource.Config(eval_share=0.3, exclude_positions=(0,))
    )
    assert s.rows["eval"].tolist() == source(exclude_positions=(0,)).rows["eval"].tolist()
    batch = next(s.stream(4, seed=0, split="eval"))
    assert torch.equal(batch.document_ids, DOCUMENTS[s.rows["eval"][:4]])


def test_description_is_json_and_counts_rows():
    described = json.loads(json.dumps(source(exclude_positions=(0,)).describe()))
    left_out = sum(c["position"] for c in described["excluded"].values())
    assert described["n_train"] + described["n_eval"] + left_out == described["n_rows"] == N


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activations": torch.zeros(0, 3)}, "non-empty"),
        ({"activations": torch.zeros(3, 0)}, "non-empty"),
        ({"activations": torch.zeros(3)}, "non-empty"),
        ({"activations": torch.zeros(2, 3, 4)}, "non-empty"),
        ({"activations": torch.zeros(2, 3, dtype=torch.int64)}, "floating"),
        ({"activations": ROWS.index_fill(0, torch.tensor([7, 9]), math.nan)}, "row 7 "),
        ({"activations": ROWS.index_fill(0, torch.tensor([150]), math.inf)}, "row 150 "),
        ({"activations": ROWS, "token_ids": TOKENS[:-1]}, "token_ids"),
        ({"activations": ROWS, "positions": POSITIONS.float()}, "positions"),
        ({"activations": ROWS, "document_ids": DOCUMENTS[:, None]}, "document_ids"),
        ({"activations": ROWS, "config": ArraySource.Config(exclude_positions=(0,))}, "no positions"),
        ({"activations": ROWS, "config": ArraySource.Config(exclude_token_ids=(0,))}, "no token_ids"),
    ],
)
def test_impossible_arrays_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        ArraySource(**arguments)


def test_a_bad_row_in_a_late_chunk_is_named(monkeypatch):
    monkeypatch.setattr("sae_toolkit.activations.array_files.ROWS_PER_CHUNK", 16)
    with pytest.raises(ValueError, match="row 123 "):
        ArraySource(ROWS.index_fill(0, torch.tensor([123]), math.nan))


def test_nothing_left_after_exclusion_raises():
    with pytest.raises(ValueError, match="all 200 rows"):
        source(exclude_positions=(0, 1, 2, 3, 4))


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_impossible_shares_raise(share):
    with pytest.raises(ValueError, match="eval_share"):
        ArraySource.Config(eval_share=share)


@pytest.mark.parametrize(("share", "split"), [(0.0, "eval"), (1.0, "train")])
def test_an_empty_split_raises(share, split):
    with pytest.raises(ValueError, match=f"{split} split .* is empty"):
        source(eval_share=share).stream(4, seed=0, split=split)


@pytest.mark.parametrize("batch_size", [0, N + 1])
def test_impossible_batch_sizes_raise(batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        source(eval_share=0.0).stream(batch_size, seed=0, split="train")


@pytest.mark.usefixtures("as_users_call")
def test_an_unknown_split_raises():
    with pytest.raises(ValueError, match="split"):
        source().stream(4, seed=0, split="test")


@pytest.mark.parametrize(
    "name", ["missing.npy", "notes.txt", "broken.npy", "objects.npy", "swapped.npy", "broken.safetensors"]
)
def test_unreadable_files_raise(name, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "broken.npy").write_bytes(b"hello")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "swapped.npy", np.ones((4, 2), dtype=">f4"))
    (tmp_path / "broken.safetensors").write_bytes(b"hello")
    with pytest.raises(ValueError, match="ArraySource"):
        ArraySource.from_file(tmp_path / name)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"positions": POSITIONS}, "no `activations`"),
        ({"activations": ROWS, "document_id": DOCUMENTS}, "Did you mean document_ids"),
        ({"activations": ROWS, "qqq": DOCUMENTS}, "Known names"),
    ],
)
def test_unknown_or_missing_tensors_raise(tensors, message, tmp_path):
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message):
        ArraySource.from_file(tmp_path / "a.safetensors")


def test_labels_given_twice_raise(tmp_path):
    save_file({"activations": ROWS, "positions": POSITIONS}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="holds its own"):
        ArraySource.from_file(tmp_path / "a.safetensors", positions=POSITIONS)


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data is not beside this checkout")
def test_real_activations_split_by_story():
    (path,) = REAL.glob("stories260K_*.safetensors")
    s = ArraySource.from_file(path, config=ArraySource.Config(exclude_positions=(0,), exclude_token_ids=(1,)))
    batch = next(s.stream(1024, seed=0, split="train"))
    assert batch.activations.shape == (1024, 64)
    assert (batch.positions != 0).all()
    documents = s.labels["document_ids"]
    train, held_out = (set(documents[s.rows[split]].tolist()) for split in ("train", "eval"))
    assert train.isdisjoint(held_out)
    assert len(held_out) / len(train | held_out) == pytest.approx(0.1, abs=0.05)
