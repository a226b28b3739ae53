import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sae_toolkit.activations.documents import Documents, GivenDocuments
from sae_toolkit.activations.text import Text, TextConfig

tokenizers = pytest.importorskip("tokenizers", exc_type=ImportError)
transformers = pytest.importorskip("transformers", exc_type=ImportError)
models, pre_tokenizers = tokenizers.models, tokenizers.pre_tokenizers

DATA = Path(__file__).parents[2].parent / "shared/data"
EVERYTHING = TextConfig(context_length=4, eval_share=0.0)  # all documents are train


def words(**special):
    """One token per word, ids in this order: <bos> is 0."""
    vocabulary = {word: i for i, word in enumerate(["<bos>", "<eos>", *"abcdefgh"])}
    model = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, **special)


def letters(**special):
    """Byte-level, without merges: every text can be written and read back."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, **special)


BOTH = {"bos_token": "<bos>", "eos_token": "<eos>"}
END = {"eos_token": "<|endoftext|>"}
MANY = [f"story {i} of some letters, {'x' * (i % 7)} and no more" for i in range(300)]


def windows_of(text, split):
    """All windows of a split with their starts."""
    found, start = [], 0
    while start is not None:
        found.append((start, text.window(split, start)))
        start = found[-1][1].next_start
    return found


def rows_of(window):
    return window.rows(torch.arange(window.n_rows))


def tokens_of(text, split="train"):
    return [row for _, window in windows_of(text, split) for row in rows_of(window).tokens.tolist()]


def documents_of(text, split):
    return {i for _, window in windows_of(text, split) for i in window.numbers.tolist()}


def test_rows_worked_out_by_hand():
    rows = rows_of(Text(["a b", "c", "d e f"], words(**BOTH), EVERYTHING).window("train", 0))
    # a=2 ... f=7, eos=1: 2 3 1 | 4 1 5 | 6 7 1, each row behind bos=0
    assert rows.tokens.tolist() == [[0, 2, 3, 1], [0, 4, 1, 5], [0, 6, 7, 1]]
    assert rows.document_ids.tolist() == [[0, 0, 0, 0], [1, 1, 1, 2], [2, 2, 2, 2]]


def test_a_bos_with_id_0_is_a_bos():
    text = Text(["a b c"], words(**BOTH), EVERYTHING)
    assert text.bos_token_id == 0
    assert text.special_token_ids == {"bos": 0, "eos": 1}
    assert text.describe()["config"]["prepend_bos"] is True


def test_bos_can_be_left_out():
    text = Text(["a b", "c"], words(**BOTH), replace(EVERYTHING, prepend_bos=False))
    assert tokens_of(text) == [[2, 3, 1, 4]]
    assert text.describe()["config"]["prepend_bos"] is False


def test_a_tokenizer_without_bos_starts_rows_with_text():
    text = Text(["a b", "c"], words(eos_token="<eos>"), EVERYTHING)
    assert tokens_of(text) == [[2, 3, 1, 4]]
    assert text.special_token_ids == {"eos": 1}


def test_bos_asked_of_a_tokenizer_without_one_is_refused():
    with pytest.raises(ValueError, match=r"prepend_bos=True asked, but the tokenizer .* has no BOS"):
        Text(["a"], words(eos_token="<eos>"), TextConfig(prepend_bos=True))


def test_without_eos_documents_are_joined_without_one():
    text = Text(["a b", "c", "d"], words(), EVERYTHING)
    assert tokens_of(text) == [[2, 3, 4, 5]]
    assert text.describe()["tokenizer"]["joined_by_eos"] is False


def test_pad_may_be_the_same_token_as_eos():
    text = Text(["a b", "c"], words(eos_token="<eos>", pad_token="<eos>"), EVERYTHING)
    assert text.special_token_ids == {"eos": 1, "pad": 1}
    assert tokens_of(text) == [[2, 3, 1, 4]]


def test_a_special_token_written_in_a_document_is_that_token():
    text = Text(["a <bos> b <eos> c"], words(**BOTH), replace(EVERYTHING, prepend_bos=False))
    assert tokens_of(text) == [[2, 0, 3, 1]]


def test_documents_without_tokens_keep_their_number_and_leave_no_eos():
    text = Text(["a", "", " ", "b"], words(eos_token="<eos>"), EVERYTHING)
    rows = rows_of(text.window("train", 0))
    assert (rows.tokens.tolist(), rows.document_ids.tolist()) == ([[2, 1, 3, 1]], [[0, 0, 3, 3]])


def test_documents_may_be_token_ids():
    ids = [np.array([2, 3], dtype=np.uint16), "c"]
    assert tokens_of(Text(ids, words(eos_token="<eos>"), EVERYTHING)) == [[2, 3, 1, 4]]


@pytest.mark.parametrize("ids", [[2, 10], [-1, 2]])
def test_token_ids_the_tokenizer_does_not_know_are_refused(ids):
    with pytest.raises(ValueError, match="has ids 0 to 9"):
        Text([np.array(ids)], words(), EVERYTHING).window("train", 0)


@pytest.mark.parametrize("context_length", [2, 7, 64])
@pytest.mark.parametrize("window_tokens", [64, 500, 10**6])
def test_decoded_rows_are_the_documents_joined_by_eos(context_length, window_tokens):
    texts = ["Ünïcode, 日本語", " leading and trailing ", "line\n\nbreaks\t", "x", *MANY[:40]]
    tokenizer = letters(**END)
    config = replace(EVERYTHING, context_length=context_length, window_tokens=window_tokens)
    text, written = Text(texts, tokenizer, config), ""
    for start, window in windows_of(text, "train"):
        part = "".join(t + "<|endoftext|>" for t in texts[start : window.next_start])
        ids = rows_of(window).tokens.flatten().tolist()
        expected = tokenizer(part, add_special_tokens=False)["input_ids"]
        assert ids == expected[: len(ids)]
        assert len(expected) - len(ids) < context_length  # what is dropped fills no row
        written += tokenizer.decode(ids + expected[len(ids) :])
    assert written == "".join(t + "<|endoftext|>" for t in texts)


def test_no_row_is_padded():
    text = Text(MANY, letters(eos_token="<|endoftext|>", pad_token="<pad>"), TextConfig(context_length=32))
    tokens = torch.tensor(tokens_of(text))
    assert tokens.shape[1] == 32
    assert not (tokens == text.pad_token_id).any()


def test_the_split_is_the_hash_of_the_content():
    text = Text(MANY, letters(**END), TextConfig(context_length=8, eval_share=0.3))
    hashes = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:8], "big") / 2**64 for t in MANY]
    assert documents_of(text, "eval") == {i for i, share in enumerate(hashes) if share < 0.3}
    assert documents_of(text, "train") == {i for i, share in enumerate(hashes) if share >= 0.3}


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_about_the_asked_share_is_held_out(share):
    text = Text([str(i) for i in range(2000)], letters(**END), TextConfig(context_length=2, eval_share=share))
    assert len(documents_of(text, "eval")) == pytest.approx(2000 * share, abs=4 * (2000 * share * (1 - share)) ** 0.5)


def test_equal_documents_are_on_the_same_side():
    text = Text([*MANY[:50], *MANY[:50]], letters(**END), TextConfig(context_length=2, eval_share=0.5))
    held_out = documents_of(text, "eval")
    assert {i for i in held_out if i < 50} == {i - 50 for i in held_out if i >= 50}


@pytest.mark.parametrize(("share", "full", "empty"), [(0.0, "train", "eval"), (1.0, "eval", "train")])
def test_a_split_may_have_everything(share, full, empty):
    text = Text(MANY, letters(**END), TextConfig(context_length=8, eval_share=share))
    assert documents_of(text, full) == set(range(300))
    assert documents_of(text, empty) == set()


def test_windows_end_with_the_document_that_fills_them():
    # four tokens per document with its eos; a window of 10 takes three
    text = Text(["a b c"] * 8, words(eos_token="<eos>"), replace(EVERYTHING, window_tokens=10))
    found = windows_of(text, "train")
    assert [(start, w.n_documents, w.n_tokens, w.next_start) for start, w in found] == [
        (0, 3, 12, 3),
        (3, 3, 12, 6),
        (6, 2, 8, None),
    ]


def test_a_window_that_ends_with_the_corpus_has_no_next():
    text = Text(["a b c"] * 6, words(eos_token="<eos>"), replace(EVERYTHING, window_tokens=12))
    assert [start for start, _ in windows_of(text, "train")] == [0, 3]


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize("limit", [None, 5000])
def test_a_window_depends_on_nothing_but_its_arguments(monkeypatch, split, limit):
    monkeypatch.setattr("sae_toolkit.activations.documents.CHARACTERS_PER_BATCH", 300)
    config = TextConfig(context_length=8, eval_share=0.4, window_tokens=900, limit_tokens=limit)
    text = Text(MANY, letters(**END), config)
    found = windows_of(text, split)
    assert len(found) > 2
    for start, window in reversed(found):
        fresh = Text(lambda: iter(MANY), letters(**END), config).window(split, start)
        assert fresh.next_start == window.next_start
        assert all(torch.equal(a, b) for a, b in zip(rows_of(fresh), rows_of(window), strict=True))


def test_a_forgotten_window_comes_back_the_same():
    text = Text(MANY, letters(**END), TextConfig(context_length=8, eval_share=0.4, window_tokens=900))
    found = windows_of(text, "train")
    assert len(found) > 5  # more than are remembered
    for start, window in (found[4], found[0], found[1], found[3]):
        text.windows.clear()
        again = text.window("train", start)
        assert again.next_start == window.next_start
        assert all(torch.equal(a, b) for a, b in zip(rows_of(again), rows_of(window), strict=True))


def test_a_window_may_start_at_any_document():
    text = Text(["a b c"] * 8, words(eos_token="<eos>"), replace(EVERYTHING, window_tokens=10))
    assert text.window("train", 4).numbers.tolist() == [4, 5, 6]


def test_a_window_beyond_the_corpus_is_empty():
    window = Text(["a b c"], words(), EVERYTHING).window("train", 5)
    assert (window.n_rows, window.next_start) == (0, None)


class Counted(Documents):
    """Counts how often a document is handed out."""

    def __init__(self, texts):
        self.texts, self.n_read = texts, 0

    def iterate(self, start):
        for text in self.texts[start:]:
            self.n_read += 1
            yield text

    def describe(self):
        return {}


def test_one_pass_over_a_split_reads_each_document_once(monkeypatch):
    monkeypatch.setattr("sae_toolkit.activations.documents.CHARACTERS_PER_BATCH", 300)
    documents = Counted(MANY)
    text = Text(documents, letters(**END), TextConfig(context_length=8, window_tokens=900))
    assert len(windows_of(text, "train")) > 5
    assert documents.n_read == 300


def test_first_and_current_windows_of_both_splits_are_remembered():
    documents = Counted(MANY)
    text = Text(documents, letters(**END), TextConfig(context_length=8, eval_share=0.5, window_tokens=900))
    asked = []
    for split in ("train", "eval"):
        asked += [(split, 0), (split, text.window(split, 0).next_start)]
    kept = [text.window(split, start) for split, start in asked]
    n_read = documents.n_read
    assert all(text.window(split, start) is window for (split, start), window in zip(asked, kept, strict=True))
    assert documents.n_read == n_read
    assert len(text.windows) == 4
    text.window("train", 100)
    assert len(text.windows) == 4


def test_the_corpus_ends_with_the_document_that_reaches_limit_tokens():
    # documents of 3, 2, 4, 3 and 2 tokens with their eos: sums 3, 5, 9, 12, 14
    texts = ["a b", "c", "d e f", "g h", "a"]
    for limit, n_documents in [(1, 1), (3, 1), (4, 2), (9, 3), (10, 4), (14, 5), (15, 5)]:
        text = Text(texts, words(eos_token="<eos>"), replace(EVERYTHING, context_length=2, limit_tokens=limit))
        assert documents_of(text, "train") == set(range(n_documents)), limit
        assert text.window("train", 0).next_start is None


def test_limit_tokens_counts_both_splits(monkeypatch):
    monkeypatch.setattr("sae_toolkit.activations.documents.CHARACTERS_PER_BATCH", 300)
    config = TextConfig(context_length=8, eval_share=0.4, window_tokens=900, limit_tokens=5000)
    lengths = np.cumsum([len(t) + 1 for t in MANY])  # one token per letter and the eos
    n_documents = int(np.argmax(lengths >= 5000)) + 1
    for order in (("train", "eval"), ("eval", "train")):
        text = Text(MANY, letters(**END), config)
        found = {split: documents_of(text, split) for split in order}
        assert found["train"] | found["eval"] == set(range(n_documents))


def test_nothing_is_read_far_beyond_limit_tokens():
    documents = Counted([str(i) * 1000 for i in range(10, 10_000)])
    list(windows_of(Text(documents, letters(**END), TextConfig(limit_tokens=50_000, eval_share=0.5)), "eval"))
    assert documents.n_read < 1000  # one batch is about a million characters


@pytest.mark.parametrize("eval_share", [0.0, 1.0])
def test_three_words_that_fill_no_row_are_answered_with_numbers(eval_share):
    split = "eval" if eval_share else "train"
    text = Text(["a b c"], words(**BOTH), TextConfig(eval_share=eval_share))
    with pytest.raises(ValueError, match=rf"the {split} split has 0 rows of 128 tokens: 1 documents, 4 tokens in it"):
        text.check_rows(split)


def test_three_words_are_enough_for_short_rows():
    text = Text(["a b c"], words(**BOTH), TextConfig(eval_share=0.0, context_length=2))
    text.check_rows("train")
    assert tokens_of(text) == [[0, 2], [0, 3], [0, 4], [0, 1]]


def test_a_split_without_documents_is_answered_with_numbers():
    with pytest.raises(ValueError, match="the eval split has 0 rows of 4 tokens: 0 documents, 0 tokens in it"):
        Text(MANY, letters(**END), EVERYTHING).check_rows("eval")


def test_a_tokenizer_with_an_empty_vocabulary_is_refused():
    empty = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(models.BPE({}, [])), eos_token="<eos>"
    )
    with pytest.raises(ValueError, match=r"gives no tokens .* its vocabulary may be empty"):
        Text(MANY, empty, EVERYTHING).window("train", 0)


def test_text_that_is_no_valid_unicode_is_named():
    with pytest.raises(ValueError, match="document 1 is no valid Unicode"):
        Text(["fine", "\ud800"], letters(**END), EVERYTHING).window("train", 0)


def test_an_unknown_split_is_refused(as_users_call):
    with pytest.raises(ValueError, match="split='test' asked"):
        Text(MANY, letters(**END), EVERYTHING).window("test", 0)


def test_a_negative_start_is_refused():
    with pytest.raises(ValueError, match="start=-1 asked"):
        Text(MANY, letters(**END), EVERYTHING).window("train", -1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("context_length", 1),
        ("eval_share", -0.1),
        ("eval_share", 1.1),
        ("limit_tokens", 0),
        ("window_tokens", 127),
        ("separator", ""),
        ("text_field", ""),
        ("hub_split", ""),
        ("path", ""),
        ("subset", ""),
    ],
)
def test_impossible_choices_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        TextConfig(**{field: value})


def test_text_is_read_from_the_path_of_the_config(tmp_path):
    (tmp_path / "a.txt").write_text("a b|c")
    config = replace(EVERYTHING, path=str(tmp_path / "a.txt"), separator="|")
    assert tokens_of(Text.read(words(eos_token="<eos>"), config, offline=True)) == [[2, 3, 1, 4]]


def test_text_is_read_from_the_field_of_the_config(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"story": "a b c"}')
    config = replace(EVERYTHING, path=str(tmp_path), text_field="story")
    assert tokens_of(Text.read(words(eos_token="<eos>"), config, offline=True)) == [[2, 3, 4, 1]]


def test_reading_without_a_path_is_refused():
    with pytest.raises(ValueError, match="no path given"):
        Text.read(words(), TextConfig())


def test_the_description_is_stable_json():
    described = [Text(MANY, letters(**END), EVERYTHING).describe() for _ in range(2)]
    assert json.dumps(described[0]) == json.dumps(described[1])


@pytest.mark.parametrize(
    "other",
    [
        lambda: Text(MANY[:-1], letters(**END), EVERYTHING),
        lambda: Text(MANY, letters(), EVERYTHING),
        lambda: Text(MANY, words(**END), EVERYTHING),
        lambda: Text(MANY, letters(**END), replace(EVERYTHING, window_tokens=1000)),
    ],
    ids=["documents", "special tokens", "vocabulary", "config"],
)
def test_whatever_decides_the_rows_is_described(other):
    assert other().describe() != Text(MANY, letters(**END), EVERYTHING).describe()


def test_the_vocabulary_hash_does_not_depend_on_the_order_of_the_vocabulary():
    text = Text(GivenDocuments(["a"]), words(), EVERYTHING)
    pairs = sorted([("<bos>", 0), ("<eos>", 1), *((word, i) for i, word in enumerate("abcdefgh", start=2))])
    expected = hashlib.sha256(json.dumps([list(pair) for pair in pairs]).encode()).hexdigest()
    assert text.describe()["tokenizer"]["vocabulary_sha256"] == expected


def test_tokenising_leaves_the_tokenizer_as_it_was():
    tokenizer = letters(**END)
    before = tokenizer.backend_tokenizer.to_str()
    Text(MANY, tokenizer, EVERYTHING).window("train", 0)
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.skipif(not (DATA / "gpt2_tokenizer").is_dir(), reason="../shared/data is not beside this checkout")
def test_real_text_through_the_gpt2_tokenizer_reads_back():
    tokenizer = transformers.AutoTokenizer.from_pretrained(DATA / "gpt2_tokenizer")
    config = TextConfig(path=str(DATA / "wikitext2/valid.txt"), eval_share=0.0, prepend_bos=False)
    rows = rows_of(Text.read(tokenizer, config, offline=True).window("train", 0)).tokens
    written = (DATA / "wikitext2/valid.txt").read_text(encoding="utf-8").strip()
    back = tokenizer.decode(rows.flatten().tolist(), clean_up_tokenization_spaces=False)
    assert written.startswith(back.rstrip("\ufffd"))
    assert len(written) - len(back) < 128 * 20
