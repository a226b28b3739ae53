import json
import math
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from sae_toolkit.activations import ActivationSource, ArraySource
from sae_toolkit.activations.cache import CachedSource, build_cache, cache_bytes, cache_info, verify_cache
from sae_toolkit.activations.shuffle import (
    GroupReader,
    GroupRows,
    ShuffledStream,
    WindowExtent,
    buffer_samples,
    buffered_bytes,
    windows_of_pass,
)
from sae_toolkit.sealed_files import sealed

CONTEXT, ROWS = 5, 3  # tokens of a row, rows of a group
N_ROWS = {"train": {0: 20, 7: 13}, "eval": {0: 4, 9: 4}}  # windows by their first document: 165 and 40 tokens
N_TOKENS = 205
PAYLOAD = N_TOKENS * (6 * 4 + 3 * 8 + 1)  # activations, labels, mask byte; the masked tokens are stored as well


class LiveSource(ActivationSource, GroupReader):
    """A stand-in for a language model: activations are a fixed function of token, position and document."""

    def __init__(self, scale=1.0, text="a", die_at=None, shuffle_buffer="40 tokens", sites=None):
        self.read_at = sites or {"early": 2, "late": 4}
        self.scale, self.text, self.die_at, self.shuffle_buffer = scale, text, die_at, shuffle_buffer
        self.n_read = 0

    @property
    def d_in(self):
        return 6

    @property
    def sites(self):
        return self.read_at

    @property
    def max_group_samples(self):
        return ROWS * CONTEXT

    def extent(self, split, start):
        n_rows, later = N_ROWS[split][start], [s for s in N_ROWS[split] if s > start]
        return WindowExtent(math.ceil(n_rows / ROWS), later[0] if later else None, n_rows * CONTEXT)

    def read_group_rows(self, split, start, group):
        if self.n_read == self.die_at:
            os.kill(os.getpid(), 9)
        self.n_read += 1
        extent = self.extent(split, start)
        rows = torch.arange(extent.n_samples).reshape(-1, CONTEXT)[group :: extent.n_groups]
        place = rows.reshape(-1) + 1000 * start
        tokens, positions = place * 7 % 11, place % CONTEXT
        documents = start + 2 * (place % 1000 // 20) + (split == "eval")
        x = torch.sin(place[:, None] * torch.arange(1.0, 7.0) + len(self.text) + (split == "eval") / 2)
        masks = {"position": positions == 0, "token_id": tokens == 0, "never": tokens == 99}
        return GroupRows(self.scale * x, tokens, positions, documents, masks)

    def stream(self, batch_size, *, seed, split):
        n = buffer_samples(self.shuffle_buffer, buffered_bytes(self.d_in))
        identity = {"source": "LiveSource", "content_sha256": self.text}
        return ShuffledStream(self, identity, buffer_samples=n, batch_size=batch_size, seed=seed, split=split)

    def describe(self):
        return {"name": "LiveSource", "model": {"scale": self.scale}, "text": self.text, "hooks": ("early", "late")}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("sae_toolkit.activations.cache_writing.MEGABYTE", 1000)


def small_source(folder):
    """For the contract tests."""
    return build_cache(LiveSource(sites={"late": 6}), folder / "cache")


def build(folder, source=None, **changes):
    return build_cache(source or LiveSource(), folder / "cache", **({"shard_mb": 2} | changes))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same_batches(expected, found, *, cast=None):
    expected, found = list(expected), list(found)
    assert len(expected) == len(found) > 0
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a.activations if cast is None else a.activations.to(cast).float(), b.activations)
        assert all(torch.equal(x, y) for x, y in zip(a[1:4], b[1:4], strict=True))
        assert a.excluded == b.excluded


def take(source, n, split="train", batch_size=8, seed=3):
    stream = source.stream(batch_size, seed=seed, split=split)
    return [batch for _, batch in zip(range(n), stream, strict=False)]


def test_three_train_epochs_are_the_live_ones_bit_for_bit(tmp_path):
    # 33 rows of 4 tokens that are not first, a few of them token 0: fewer than 132 samples, 17 batches an epoch
    assert_same_batches(take(LiveSource(), 51), take(build(tmp_path), 51))


def test_eval_is_the_live_one_bit_for_bit(tmp_path):
    assert_same_batches(take(LiveSource(), 99, "eval"), take(build(tmp_path), 99, "eval"))


@pytest.mark.parametrize(("dtype", "bytes_per_sample"), [("float16", 12 + 25), ("bfloat16", 12 + 25)])
def test_half_precision_rounds_once(dtype, bytes_per_sample, tmp_path):
    cached = build(tmp_path, dtype=dtype)
    assert_same_batches(take(LiveSource(), 20), take(cached, 20), cast=getattr(torch, dtype))
    assert cache_bytes(LiveSource(), dtype) == N_TOKENS * bytes_per_sample


def test_all_rows_are_stored_also_those_left_out(tmp_path):
    live, cached = LiveSource(), build(tmp_path)
    for split in ("train", "eval"):
        for start, extent in windows_of_pass(live, split):
            assert cached.extent(split, start) == extent
            for group in range(extent.n_groups):
                a, b = live.read_group_rows(split, start, group), cached.read_group_rows(split, start, group)
                assert all(torch.equal(x, y) for x, y in zip(a[:4], b[:4], strict=True))
                assert list(a.excluded_by) == list(b.excluded_by)
                assert all(torch.equal(a.excluded_by[reason], b.excluded_by[reason]) for reason in a.excluded_by)


def test_the_cache_knows_what_it_is_of(tmp_path):
    cached = build(tmp_path)
    assert (cached.d_in, dict(cached.sites), cached.max_group_samples) == (6, {"early": 2, "late": 4}, 15)
    described = json.loads(json.dumps(cached.describe()))
    assert described["of"] == json.loads(json.dumps(LiveSource().describe()))
    assert (described["name"], described["dtype"]) == ("CachedSource", "float32")


@pytest.mark.parametrize(("buffer", "n_filled"), [("40 tokens", 40), ("1 MB", 100)])  # 100 tokens: largest window
def test_memory_is_that_of_the_buffer_as_far_as_it_is_filled(buffer, n_filled, tmp_path):
    (part,) = build(tmp_path, LiveSource(shuffle_buffer=buffer)).memory_bytes()
    assert part.bytes == n_filled * (6 * 4 + 3 * 8 + 8)


def test_other_content_has_another_hash(tmp_path):
    hashes = {
        build(tmp_path / name, source, **changes).describe()["cache_sha256"]
        for name, source, changes in [
            ("a", LiveSource(), {}),
            ("b", LiveSource(scale=2.0), {}),
            ("c", LiveSource(), {"dtype": "float16"}),
        ]
    }
    assert len(hashes) == 3


def test_a_stream_goes_on_in_another_process_of_the_same_cache(tmp_path):
    stream = build(tmp_path).stream(8, seed=0, split="train")
    for _ in range(11):
        next(stream)
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = CachedSource(tmp_path / "cache", shuffle_buffer="40 tokens").stream(8, seed=0, split="train")
    resumed.load_state_dict(state)
    assert_same_batches([next(stream) for _ in range(20)], [next(resumed) for _ in range(20)])


def test_the_state_of_another_cache_is_refused(tmp_path):
    state = build(tmp_path / "a").stream(8, seed=0, split="train").state_dict()
    with pytest.raises(ValueError, match="content_sha256"):
        build(tmp_path / "b", LiveSource(text="b")).stream(8, seed=0, split="train").load_state_dict(state)


def payload_of(path):
    """Bytes of the tensors of a .safetensors file: 8 bytes say how long its header is."""
    data = path.read_bytes()
    return len(data) - 8 - int.from_bytes(data[:8], "little")


def test_the_size_is_known_beforehand(tmp_path):
    build(tmp_path)
    payload = sum(payload_of(path) for path in (tmp_path / "cache").glob("shard-*"))
    assert cache_bytes(LiveSource(), "float32") == payload == PAYLOAD


def test_shards_are_as_large_as_asked(tmp_path):
    build(tmp_path)
    # 2000 bytes hold 40 samples of 49 bytes. Groups of 15 15 15 15 15 15 10 | 15 15 15 10 10 | 10 10 | 10 10 tokens
    # (20 rows in 7 groups, 13 in 5, 4 in 2, 4 in 2, of 5 tokens), each into the current shard where it still fits.
    sizes = [payload_of(path) / 49 for path in sorted((tmp_path / "cache").glob("shard-*"))]
    assert sizes == [15 + 15, 15 + 15, 15 + 15 + 10, 15 + 15, 15 + 10 + 10, 10 + 10 + 10 + 10]


def test_the_log_says_how_far_it_is(tmp_path):
    records = []
    build(tmp_path, log=records.append)
    assert all(json.dumps(record) for record in records)
    assert (records[0]["bytes"], records[0]["bytes_total"]) == (0, PAYLOAD)
    assert (records[-1]["bytes"], records[-1]["samples"]) == (PAYLOAD, N_TOKENS)
    assert [record["shards"] for record in records] == list(range(len(records)))


def test_cache_info_counts_what_is_there(tmp_path):
    build(tmp_path)
    info = json.loads(json.dumps(cache_info(tmp_path / "cache")))
    assert info["sites"] == {"early": 2, "late": 4}
    assert info["samples"] == {"train": 165, "eval": 40}
    assert info["bytes"] == sum(len(data) for name, data in files(tmp_path / "cache").items() if "shard" in name)
    assert info["excluded_by"] == ["position", "token_id", "never"]


@pytest.mark.parametrize("die_at", [0, 1, 8, 15])
def test_a_killed_write_goes_on_and_ends_with_the_same_files(die_at, tmp_path):
    build(tmp_path / "whole")
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import sae_toolkit.activations.cache_writing as writing, test_cache\n"
        "from pathlib import Path\n"
        "writing.MEGABYTE = 1000\n"
        f"test_cache.build(Path({str(tmp_path / 'killed')!r}), test_cache.LiveSource(die_at={die_at}))\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -9
    with pytest.raises(ValueError, match="unfinished"):
        CachedSource(tmp_path / "killed" / "cache")
    resuming = LiveSource()
    build(tmp_path / "killed", resuming)
    assert files(tmp_path / "killed" / "cache") == files(tmp_path / "whole" / "cache")


def interrupted(folder, n_groups):
    """A cache whose writing was broken off after some groups; the folder of it."""

    class Broken(LiveSource):
        def read_group_rows(self, split, start, group):
            if self.n_read == n_groups:
                raise KeyboardInterrupt
            return super().read_group_rows(split, start, group)

        def describe(self):
            return LiveSource().describe()

    with pytest.raises(KeyboardInterrupt):
        build(folder, Broken())
    return folder / "cache"


def test_whole_shards_are_kept(tmp_path):
    cache = interrupted(tmp_path, 8)
    before = {path: path.stat().st_mtime_ns for path in cache.glob("shard-*")}
    source = LiveSource()
    build(tmp_path, source)
    assert len(before) >= 2
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    assert source.n_read < 12


def test_half_written_and_unrecorded_files_are_replaced(tmp_path):
    cache = interrupted(tmp_path / "a", 8)
    n_shards = len(list(cache.glob("shard-*")))
    (cache / ".unfinished-shard-00003.safetensors-1").write_bytes(b"half")
    (cache / f"shard-{n_shards:05d}.safetensors").write_bytes(b"renamed, then killed before it was recorded")
    build(tmp_path / "a")
    build(tmp_path / "b")
    assert files(cache) == files(tmp_path / "b" / "cache")


def test_a_shard_damaged_since_is_written_again(tmp_path):
    cache = interrupted(tmp_path / "a", 8)
    flip_byte(cache / "shard-00001.safetensors")
    records = []
    build(tmp_path / "a", log=records.append)
    build(tmp_path / "b")
    assert files(cache) == files(tmp_path / "b" / "cache")
    assert "shard-00001" in records[0]["message"]


def test_a_writer_killed_after_its_last_file_leaves_a_whole_cache(tmp_path):
    build(tmp_path)
    before = files(tmp_path / "cache")
    (tmp_path / "cache" / "progress.json").write_text("not deleted any more")
    build(tmp_path)
    assert files(tmp_path / "cache") == before


def test_a_whole_cache_is_kept(tmp_path):
    build(tmp_path)
    before = files(tmp_path / "cache")
    source = LiveSource()
    build(tmp_path, source)
    assert source.n_read == 0
    assert files(tmp_path / "cache") == before


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        (LiveSource(scale=2.0), {}, r"source\.model\.scale: saved 1\.0, asked 2\.0"),
        (LiveSource(text="b"), {}, r"source\.text: saved 'a', asked 'b'"),
        (LiveSource(), {"dtype": "float16"}, "dtype: saved 'float32', asked 'float16'"),
    ],
)
def test_a_folder_with_another_cache_is_refused(finished, source, changes, message, tmp_path):
    if finished:
        build(tmp_path)
    else:
        interrupted(tmp_path, 8)
    before = files(tmp_path / "cache")
    with pytest.raises(ValueError, match=message):
        build(tmp_path, source, **changes)
    assert files(tmp_path / "cache") == before


def test_a_folder_with_anything_else_is_refused(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"thesis\.txt, which belongs to no cache"):
        build(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ValueError, match="is a file"):
        build(tmp_path)


def test_too_little_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 0, PAYLOAD - 1))
    with pytest.raises(ValueError, match="are needed in"):
        build(tmp_path)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 0, PAYLOAD))
    assert build(tmp_path).d_in == 6


def test_a_stale_cache_is_refused_with_the_difference(tmp_path):
    cached = build(tmp_path)
    cached.check_against(LiveSource())
    with pytest.raises(ValueError, match=r"stale.*model\.scale: saved 1\.0, asked 3\.0"):
        cached.check_against(LiveSource(scale=3.0))


def test_sites_in_another_order_are_stale(tmp_path):
    cached = build(tmp_path)
    swapped = LiveSource(sites={"late": 4, "early": 2})
    with pytest.raises(ValueError, match=r"sites\[0\]\[0\]: saved 'early', asked 'late'"):
        cached.check_against(swapped)
    with pytest.raises(ValueError, match=r"sites\[0\]\[0\]: saved 'early', asked 'late'"):
        build(tmp_path, swapped)


def test_the_cache_of_a_source_mixes_as_it_does(tmp_path):
    build(tmp_path)
    live = LiveSource(shuffle_buffer="70 tokens")
    assert_same_batches(take(live, 40), take(CachedSource.of(live, tmp_path / "cache"), 40))
    with pytest.raises(ValueError, match="stale"):
        CachedSource.of(LiveSource(text="b"), tmp_path / "cache")


def flip_byte(path):
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def test_one_changed_bit_is_found(tmp_path):
    build(tmp_path)
    verify_cache(tmp_path / "cache")
    flip_byte(tmp_path / "cache" / "shard-00002.safetensors")
    with pytest.raises(ValueError, match=r"shard-00002.*sha256"):
        verify_cache(tmp_path / "cache")


def test_a_cut_shard_is_found_on_opening(tmp_path):
    build(tmp_path)
    path = tmp_path / "cache" / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"shard-00001.*bytes found"):
        CachedSource(tmp_path / "cache")


def test_a_missing_shard_is_found_on_opening(tmp_path):
    build(tmp_path)
    (tmp_path / "cache" / "shard-00000.safetensors").unlink()
    with pytest.raises(ValueError, match=r"shard-00000.* is missing"):
        CachedSource(tmp_path / "cache")


@pytest.mark.parametrize("change", [lambda text: text[:-1], lambda text: text.replace('"float32"', '"float16"')])
def test_a_damaged_index_is_refused(change, tmp_path):
    build(tmp_path)
    index = tmp_path / "cache" / "index.json"
    index.write_text(change(index.read_text()))
    with pytest.raises(ValueError, match=r"index\.json is damaged"):
        CachedSource(tmp_path / "cache")


def test_an_index_of_another_version_is_refused(tmp_path):
    build(tmp_path)
    (tmp_path / "cache" / "index.json").write_text(sealed({"schema_version": 2}))
    with pytest.raises(ValueError, match="schema version 2"):
        CachedSource(tmp_path / "cache")


def test_a_folder_without_a_cache_is_refused(tmp_path):
    with pytest.raises(ValueError, match="it is no cache"):
        CachedSource(tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_shard_stays_in_memory(tmp_path):
    rows = build(tmp_path).read_group_rows("train", 0, 1)
    mapped = Path("/proc/self/maps").read_text()
    assert len(rows.activations) == 15
    assert "shard-0" not in mapped
    assert rows.activations.untyped_storage().nbytes() == 15 * 6 * 4


@pytest.mark.parametrize(
    ("scale", "dtype", "message"),
    [
        (70000.0, "float16", r"group 0 of the train window at document 0 holds 6.*float16 ends at 65504.*bfloat16"),
        (math.inf, "float32", "group 0 of the train window at document 0 holds NaN or infinity"),
        (math.nan, "bfloat16", "NaN or infinity"),
    ],
)
def test_activations_that_cannot_be_stored_are_refused(scale, dtype, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, LiveSource(scale=scale), dtype=dtype)


def test_large_activations_fit_bfloat16(tmp_path):
    cached = build(tmp_path, LiveSource(scale=70000.0), dtype="bfloat16")
    assert max(float(batch.activations.max()) for batch in take(cached, 10)) > 65504


def test_a_source_that_changes_its_reasons_is_refused(tmp_path):
    class Fickle(LiveSource):
        def read_group_rows(self, split, start, group):
            rows = super().read_group_rows(split, start, group)
            return rows if group == 0 else rows._replace(excluded_by={})

    with pytest.raises(ValueError, match="same reasons in every group"):
        build(tmp_path, Fickle())


def test_a_source_that_reads_another_text_meanwhile_is_refused(tmp_path):
    class Shrinking(LiveSource):
        def read_group_rows(self, split, start, group):
            rows = super().read_group_rows(split, start, group)
            masks = {reason: mask[1:] for reason, mask in rows.excluded_by.items()}
            return GroupRows(*(column[1:] for column in rows[:4]), masks)

    with pytest.raises(ValueError, match="announced 205 samples and gave 189"):  # 16 groups less one token each
        build(tmp_path, Shrinking())


def test_a_source_without_groups_cannot_be_stored(tmp_path):
    with pytest.raises(ValueError, match="a ArraySource given"):
        build(tmp_path, ArraySource(torch.ones(4, 2)))


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize("wrong", [{"dtype": "float64"}, {"shard_mb": 0}])
def test_impossible_caches_raise(wrong, tmp_path):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        build(tmp_path, **wrong)
