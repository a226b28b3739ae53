import json
import math

import pytest
import torch

from sae_toolkit.activations.shuffle import (
    GroupReader,
    GroupRows,
    ShuffledStream,
    WindowExtent,
    buffer_samples,
    buffered_bytes,
    kept_samples,
    windows_of_pass,
)

IDENTITY = {"source": "Documents", "content_sha256": "abc"}
TOKENS = 12  # of every document, in rows of 4; 3 rows make a group


class Documents(GroupReader):
    """Windows of documents, rows dealt to groups round robin; a sample's value is its number in the split."""

    def __init__(self, train=(10, 6, 8), evaluation=(3, 4), exclude=(), value=lambda sample: sample):
        self.windows = {"train": train, "eval": evaluation}
        self.exclude, self.value, self.reads = exclude, value, []

    @property
    def max_group_samples(self):
        return 12

    def n_groups(self, n_documents):
        return math.ceil(n_documents * TOKENS // 4 / 3)

    def extent(self, split, start):
        sizes, at = self.windows[split], 0
        for i, size in enumerate(sizes):
            if at == start:
                last = i == len(sizes) - 1
                return WindowExtent(self.n_groups(size), None if last else at + size, size * TOKENS)
            at += size
        raise AssertionError(f"no window starts at {start}")

    def read_group_rows(self, split, start, group):
        self.reads.append((start, group))
        extent = self.extent(split, start)
        rows = torch.arange(extent.n_samples).reshape(-1, 4)[group :: extent.n_groups] + start * TOKENS
        sample = rows.reshape(-1)
        documents, positions = sample // TOKENS, sample % TOKENS
        masks = {"position": torch.isin(positions, torch.tensor(self.exclude)), "third": sample % 3 == 2}
        if not self.exclude:
            masks = {}
        value = self.value(sample).float()
        return GroupRows(torch.stack([value, -value], dim=1), sample % 7, positions, documents, masks)


def stream(reader=None, *, buffer=48, batch_size=10, seed=0, split="train"):
    return ShuffledStream(
        reader or Documents(), IDENTITY, buffer_samples=buffer, batch_size=batch_size, seed=seed, split=split
    )


def take(batches, n):
    return [next(batches) for _ in range(n)]


def samples(batches):
    return torch.cat([batch.activations[:, 0] for batch in batches]).long().tolist()


def left_out(batches):
    total = {}
    for batch in batches:
        for reason, n in batch.excluded.items():
            total[reason] = total.get(reason, 0) + n
    return total


@pytest.mark.parametrize("buffer", [12, 47, 48, 100, 10_000])
def test_a_train_pass_gives_every_sample_once(buffer):
    given = samples(take(stream(buffer=buffer, batch_size=8), 3 * 36))  # 24 documents of 12 = 288 samples = 36 batches
    assert all(sorted(given[i : i + 288]) == list(range(288)) for i in (0, 288, 576))


def test_every_pass_has_its_own_order():
    given = samples(take(stream(batch_size=288), 3))
    assert given[:288] != given[288:576] != given[576:]


def test_every_block_is_mixed_in_its_own_way():
    given = torch.tensor(samples(take(stream(Documents(train=(40,)), buffer=12, batch_size=12), 40)))
    orders = given.reshape(40, 12).argsort(dim=1).tolist()  # blocks of one group, 12 samples
    assert len({tuple(order) for order in orders}) == 40


def test_labels_travel_with_their_samples():
    for batch in take(stream(), 20):
        sample = batch.activations[:, 0].long()
        assert torch.equal(batch.activations[:, 1].long(), -sample)
        assert torch.equal(batch.token_ids, sample % 7)
        assert torch.equal(batch.positions, sample % TOKENS)
        assert torch.equal(batch.document_ids, sample // TOKENS)


@pytest.mark.parametrize("batch_size", [1, 7, 100, 500])
def test_the_order_does_not_depend_on_the_batch_size(batch_size):
    n = math.ceil(700 / batch_size)
    assert samples(take(stream(batch_size=batch_size), n))[:700] == samples(take(stream(batch_size=70), 10))


def test_the_seed_orders_training_and_leaves_eval_alone():
    train = [samples(take(stream(seed=seed), 5)) for seed in (0, 0, 1)]
    assert train[0] == train[1] != train[2]
    assert samples(stream(seed=0, split="eval")) == samples(stream(seed=1, split="eval"))


def test_eval_is_one_pass_in_the_order_of_the_groups():
    reader = Documents(evaluation=(2, 1))
    batches = list(stream(reader, split="eval"))
    # window 0: rows 0-5 in 2 groups, so rows 0 2 4 and 1 3 5; window 1: rows 6 7 8 in one group
    expected = [4 * row + i for row in (0, 2, 4, 1, 3, 5, 6, 7, 8) for i in range(4)]
    assert samples(batches) == expected
    assert [len(batch.activations) for batch in batches] == [10, 10, 10, 6]


def test_an_ended_eval_stream_stays_ended():
    batches = stream(split="eval")
    list(batches)
    resumed = stream(split="eval")
    resumed.load_state_dict(batches.state_dict())
    assert (next(batches, None), next(resumed, None)) == (None, None)


def test_eval_needs_no_buffer():
    batches = stream(split="eval", buffer=1)
    list(batches)
    assert batches.buffer == {}


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize("exclude", [(), (0, 1), tuple(range(9))])
@pytest.mark.parametrize("n_before", range(0, 70, 3))
def test_resumed_equals_uninterrupted(split, exclude, n_before):
    batches = stream(Documents(exclude=exclude), split=split)
    for _ in range(n_before):
        next(batches, None)
    resumed = stream(Documents(exclude=exclude), split=split)
    resumed.load_state_dict(json.loads(json.dumps(batches.state_dict())))
    for _ in range(12):
        expected, found = next(batches, None), next(resumed, None)
        assert (expected is None) == (found is None)
        assert expected is None or torch.equal(expected.activations, found.activations)
        assert expected is None or expected.excluded == found.excluded


def test_a_used_stream_may_be_set_back():
    batches = stream()
    state = batches.state_dict()
    first = samples(take(batches, 3))
    batches.load_state_dict(state)
    assert samples(take(batches, 3)) == first


def test_only_the_current_block_is_read_again():
    batches = stream(Documents(train=(40,)))  # 40 groups: blocks of 1, 2, 4, 4, ... groups
    take(batches, 20)  # 200 samples: 1 + 2 + 3 * 4 groups are 180, so it stands in the sixth block
    reader = Documents(train=(40,))
    resumed = stream(reader, buffer=48)
    resumed.load_state_dict(batches.state_dict())
    next(resumed)
    assert len(reader.reads) == 4


def test_the_first_batch_waits_for_one_group_only():
    reader = Documents(train=(40,))
    batches = stream(reader, buffer=120)
    counts = []
    for _ in range(30):
        next(batches)
        counts.append(len(reader.reads))
    assert counts[0] == 1
    assert sorted(set(counts)) == [1, 3, 7, 15, 25]  # blocks of 1, 2, 4, 8, then 10 = 120 // 12 groups


def test_later_windows_fill_the_buffer_at_once():
    reader = Documents(train=(1, 40))
    batches = stream(reader, buffer=120, batch_size=12)
    take(batches, 2)  # window 0 is one group
    assert len(reader.reads) == 1 + 10


def test_the_buffer_is_exactly_as_large_as_asked():
    batches = stream(buffer=47)
    next(batches)
    assert {name: tuple(column.shape) for name, column in batches.buffer.items()} == {
        "activations": (47, 2),
        "token_ids": (47,),
        "positions": (47,),
        "document_ids": (47,),
    }


def test_a_buffer_below_one_group_is_refused():
    with pytest.raises(ValueError, match="buffer of 11 samples asked, but one forward pass gives up to 12"):
        stream(buffer=11)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_later_batches_leave_earlier_ones_alone(split):
    batches = stream(batch_size=5, split=split)
    first = take(batches, 3)
    kept = [[column.clone() for column in batch[:4]] for batch in first]
    take(batches, 12)
    for batch, copies in zip(first, kept, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch[:4], copies, strict=True))


def test_a_batch_holds_no_more_memory_than_its_own():
    for split in ("train", "eval"):
        batch = next(stream(batch_size=5, split=split))
        assert batch.activations.untyped_storage().nbytes() == 5 * 2 * 4


def test_neighbours_in_a_stream_are_unrelated():
    reader = Documents(train=(600,), value=lambda sample: torch.sin(sample // TOKENS / 600 * 2 * math.pi))
    values = torch.cat([batch.activations[:, 0] for batch in take(stream(reader, buffer=1200, batch_size=72), 100)])
    centred = values.double() - values.double().mean()
    correlation = float((centred[1:] * centred[:-1]).sum() / (centred**2).sum())
    assert abs(correlation) < 3 / math.sqrt(len(values))


def test_samples_of_one_document_are_spread_over_its_block():
    batches = stream(Documents(train=(1, 100)), buffer=1200, batch_size=12)
    next(batches)  # the first window, one document
    documents = torch.cat([batch.document_ids for batch in take(batches, 100)])
    places = torch.stack([(documents == i).nonzero()[:, 0] for i in range(1, 101)]).double()
    # 12 places out of 1200 at random: their standard deviation is 1200 / sqrt(12) = 346 on average
    assert places.std(dim=1).mean() == pytest.approx(346, rel=0.1)


def test_samples_left_out_never_appear_and_are_counted():
    batches = stream(Documents(exclude=(0, 5)), batch_size=8)
    given = take(batches, 21)  # 7 positions of 12 stay: 168 samples of 288
    # positions 0 and 5 hit 2 of 12; of the others 2, 8, 11 are third (5 as well, but it is counted under position)
    assert sorted(samples(given)) == [s for s in range(288) if s % TOKENS not in (0, 5, 2, 8, 11)]
    assert left_out(given) == {"position": 48, "third": 72}


@pytest.mark.parametrize(("batch_size", "expected"), [(8, [4, 8, 0, 16, 0, 0, 0, 16]), (24, [12, 16, 16])])
def test_counts_go_with_the_first_batch_of_their_block(batch_size, expected):
    reader = Documents(train=(40,))
    whole = reader.read_group_rows
    first_four = torch.arange(12) < 4  # of every group 8 samples stay; blocks of 1, 2, 4, 4 groups: 8, 16, 32, 32
    reader.read_group_rows = lambda *group: whole(*group)._replace(excluded_by={"first": first_four})
    batches = take(stream(reader, batch_size=batch_size), len(expected))
    assert [batch.excluded.get("first", 0) for batch in batches] == expected


def test_eval_counts_what_is_left_out_after_the_last_sample():
    reader = Documents(evaluation=(1, 1))
    whole = reader.read_group_rows

    def second_window_empty(split, start, group):
        rows = whole(split, start, group)
        return rows._replace(excluded_by={"position": torch.full((12,), start == 1)})

    reader.read_group_rows = second_window_empty
    batches = list(stream(reader, split="eval", batch_size=6))
    assert [len(batch.activations) for batch in batches] == [6, 6]
    assert left_out(batches) == {"position": 12}


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_pass_without_samples_raises(split):
    with pytest.raises(ValueError, match=f"whole pass over the {split} split gave no sample"):
        next(stream(Documents(exclude=tuple(range(12))), split=split))


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_split_without_groups_raises(split):
    with pytest.raises(ValueError, match="gave no sample"):
        next(stream(Documents(train=(0,), evaluation=(0,)), split=split))


def test_windows_and_groups_without_samples_are_passed_over():
    reader = Documents(train=(0, 4, 4), exclude=(0,))
    whole = reader.read_group_rows
    reader.read_group_rows = lambda split, start, group: whole(split, start, group)._replace(
        excluded_by={"window": torch.full((12,), start == 0)}
    )
    reader.extent = lambda split, start: {
        0: WindowExtent(4, 4, 48),
        4: WindowExtent(0, 8, 0),
        8: WindowExtent(4, None, 48),
    }[start]
    batches = take(stream(reader, batch_size=48), 2)
    assert [sorted(samples([batch])) for batch in batches] == [list(range(96, 144))] * 2
    assert [batch.excluded["window"] for batch in batches] == [48, 48]


def test_a_failed_read_leaves_the_stream_where_it_was():
    reader = Documents()
    batches = stream(reader, batch_size=12)
    expected = samples(take(stream(batch_size=12), 10))
    given = samples(take(batches, 1))
    whole = reader.read_group_rows

    def fail(split, start, group):
        raise OSError("gone")

    reader.read_group_rows = fail
    with pytest.raises(OSError, match="gone"):
        next(batches)
    reader.read_group_rows = whole
    assert given + samples(take(batches, 9)) == expected


def rows_of(masks):
    labels = torch.arange(4)
    activations = torch.arange(8, dtype=torch.bfloat16).reshape(4, 2)
    return GroupRows(activations, labels, labels + 10, labels + 20, {k: torch.tensor(m) for k, m in masks.items()})


def test_a_sample_with_two_reasons_is_counted_under_the_first():
    batch = kept_samples(rows_of({"a": [True, True, False, False], "b": [True, False, True, False]}))
    assert batch.excluded == {"a": 2, "b": 1}
    assert batch.activations.tolist() == [[6.0, 7.0]]
    assert (batch.token_ids.tolist(), batch.positions.tolist(), batch.document_ids.tolist()) == ([3], [13], [23])


def test_half_precision_becomes_float32():
    assert kept_samples(rows_of({})).activations.dtype == torch.float32


def test_the_windows_of_a_pass_are_listed():
    assert list(windows_of_pass(Documents(train=(10, 6)), "train")) == [
        (0, WindowExtent(10, 10, 120)),
        (10, WindowExtent(6, None, 72)),
    ]


@pytest.mark.parametrize(
    "other",
    [
        lambda: stream(batch_size=11),
        lambda: stream(seed=1),
        lambda: stream(split="eval"),
        lambda: stream(buffer=49),
        lambda: ShuffledStream(
            Documents(), IDENTITY | {"content_sha256": "x"}, buffer_samples=48, batch_size=10, seed=0, split="train"
        ),
    ],
    ids=["batch size", "seed", "split", "buffer", "content"],
)
def test_the_state_of_another_stream_is_refused(other):
    with pytest.raises(ValueError, match="Open the stream that was saved"):
        other().load_state_dict(stream().state_dict())


@pytest.mark.parametrize("name", ["window", "start", "block", "offset"])
@pytest.mark.parametrize("value", [-1, 1.5, True, None])
def test_a_malformed_position_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}="):
        stream().load_state_dict(stream().state_dict() | {name: value})


def test_an_incomplete_state_is_refused():
    state = stream().state_dict()
    del state["block"]
    with pytest.raises(ValueError, match=r"'block', .* are needed"):
        stream().load_state_dict(state)


def test_a_position_that_no_block_has_is_refused():
    batches = stream()
    batches.load_state_dict(batches.state_dict() | {"offset": 12})
    with pytest.raises(ValueError, match="offset=12 given, but its block holds 12"):
        next(batches)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"split": "test"}])
def test_impossible_streams_raise(wrong):
    with pytest.raises(ValueError, match="ShuffledStream: "):
        stream(**wrong)


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ("256 MB", 2_560_000),
        ("1.5 GB", 15_000_000),
        ("0.3kB", 3),
        (" 250 KB ", 2_500),
        ("199mb", 1_990_000),
        ("65536 tokens", 65_536),
        ("65536Tokens", 65_536),
    ],
)
def test_memory_is_read_as_samples_of_100_bytes(memory, expected):
    assert buffer_samples(memory, 100) == expected


@pytest.mark.parametrize(
    "memory", ["", "256", "MB", "256 MiB", "-1 GB", "1e3 MB", "0 tokens", "1.5 tokens", "99 B", "0.09 kB", "1_000 MB"]
)
def test_memory_that_is_none_is_refused(memory):
    with pytest.raises(ValueError, match=r"256 MB.* or '65536 tokens'"):
        buffer_samples(memory, 100)


def test_bytes_of_a_buffered_sample():
    assert buffered_bytes(768) == 4 * 768 + 3 * 8 + 8  # activations, three labels, one place in the order
