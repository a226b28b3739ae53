import json

import numpy as np
import pytest
import torch

from sae_toolkit.activations.document_files import READERS, as_document, find_files, sha256_of_ends, split_text

SEPARATOR = "<|endoftext|>"
THREE = ["one", "two words", "drei wörter, mehr"]


def read(path, text_field="text", separator=SEPARATOR):
    return list(READERS[path.suffix](path, text_field, separator))


def write_parquet(path, columns, **options):
    pa = pytest.importorskip("pyarrow", exc_type=ImportError)
    pytest.importorskip("pyarrow.parquet", exc_type=ImportError).write_table(pa.table(columns), path, **options)
    return path


def write(path, content):
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "content",
    [
        "one<|endoftext|>two words<|endoftext|>drei wörter, mehr",
        "\ufeffone\n<|endoftext|>\n two words <|endoftext|><|endoftext|> <|endoftext|>drei wörter, mehr<|endoftext|>\n",
    ],
)
def test_txt_is_split_at_the_separator_and_stripped(tmp_path, content):
    assert read(write(tmp_path / "a.txt", content)) == THREE


def test_txt_without_the_separator_is_one_document(tmp_path):
    assert read(write(tmp_path / "a.txt", " one\n\ntwo \n")) == ["one\n\ntwo"]


def test_txt_may_have_another_separator(tmp_path):
    assert read(write(tmp_path / "a.txt", "one\n\n\ntwo"), separator="\n\n") == ["one", "two"]


@pytest.mark.parametrize("separator", ["a", "aa", "aba", "xyz"])
def test_pieces_do_not_depend_on_where_chunks_are_cut(separator):
    letters = np.random.default_rng(0)
    for _ in range(100):
        whole = "".join(letters.choice(list("abxyz"), size=30))
        cuts = sorted(letters.integers(0, 31, size=6))
        chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, 30], strict=True)]
        assert list(split_text(chunks, separator)) == whole.split(separator)


def test_a_txt_file_is_read_no_further_than_asked(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one<|endoftext|>" + b"x" * (8 << 20) + b"<|endoftext|>\xff")  # the last byte is no UTF-8
    assert next(READERS[".txt"](path, "text", SEPARATOR)) == "one"


def test_txt_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "latin.txt").write_bytes("Wörter".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8"):
        read(tmp_path / "latin.txt")


def test_jsonl_of_objects_and_of_texts(tmp_path):
    lines = [json.dumps({"text": THREE[0], "id": 1}), "", json.dumps(THREE[1]), json.dumps({"text": THREE[2]}), ""]
    assert read(write(tmp_path / "a.jsonl", "\n".join(lines))) == THREE


def test_jsonl_with_token_ids(tmp_path):
    (ids,) = read(write(tmp_path / "a.jsonl", '{"input_ids": [5, 0, 7]}'), text_field="input_ids")
    assert ids.tolist() == [5, 0, 7]


def test_a_broken_json_line_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "fine"}\n\n{"text": "cut o')
    with pytest.raises(ValueError, match=r"a\.jsonl:3 is no JSON value"):
        read(path)


def test_json_of_texts_and_of_objects(tmp_path):
    assert read(write(tmp_path / "a.json", json.dumps(THREE))) == THREE
    assert read(write(tmp_path / "b.json", json.dumps([{"story": text} for text in THREE])), "story") == THREE


@pytest.mark.parametrize(
    ("content", "match"),
    [('{"text": "a"}', "holds one dict, but a list"), ("[", "is no JSON"), ("[3]", r"a\.json\[0\] is int")],
)
def test_json_that_is_no_list_of_documents_is_refused(tmp_path, content, match):
    with pytest.raises(ValueError, match=match):
        read(write(tmp_path / "a.json", content))


def test_parquet_column_over_several_row_groups(tmp_path):
    texts = [f"text {i}" for i in range(2500)]
    write_parquet(tmp_path / "a.parquet", {"id": range(2500), "body": texts}, row_group_size=700)
    assert read(tmp_path / "a.parquet", text_field="body") == texts


def test_a_missing_value_in_parquet_is_named(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"text": ["a", None]})
    with pytest.raises(ValueError, match=r"row 1 of .*a\.parquet is NoneType"):
        read(tmp_path / "a.parquet")


def test_a_broken_parquet_file_is_named(tmp_path):
    pytest.importorskip("pyarrow", exc_type=ImportError)
    with pytest.raises(ValueError, match=r"a\.parquet is no readable"):
        read(write(tmp_path / "a.parquet", "no"))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_a_wrong_field_is_answered_with_those_that_exist(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        write_parquet(path, {"content": ["a"], "id": [1]})
    else:
        row = {"content": "a", "id": 1}
        write(path, json.dumps(row if suffix == ".jsonl" else [row]))
    with pytest.raises(
        ValueError, match=r"no field 'contents', it has content, id\. Did you mean text_field='content'"
    ):
        read(path, text_field="contents")


def test_npy_rows_are_documents(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint16))
    assert [ids.tolist() for ids in read(tmp_path / "a.npy")] == [[1, 2, 3], [4, 5, 6]]


def test_npy_of_one_dimension_is_one_document(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(5))
    assert [ids.tolist() for ids in read(tmp_path / "a.npy")] == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((1, 1, 1), dtype=np.int64)])
def test_npy_that_holds_no_ids_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match="token ids are integers"):
        read(tmp_path / "a.npy")


def test_npy_with_objects_is_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1], "a"], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be used"):
        read(tmp_path / "a.npy")


@pytest.mark.parametrize("ids", [[3, 1], (3, 1), np.array([3, 1], dtype=np.uint16), torch.tensor([3, 1])])
def test_token_ids_may_come_in_several_types(ids):
    assert as_document(ids, "here").tolist() == [3, 1]


@pytest.mark.parametrize(
    "value", [None, 3, b"bytes", ["a", "b"], [1.0], [True], np.zeros((2, 2), dtype=int), np.zeros(2)]
)
def test_what_is_no_document_is_refused(value):
    with pytest.raises(ValueError, match=r"document 7 is .* a document is a text or a 1-D array of token ids"):
        as_document(value, "document 7")


def test_a_folder_is_searched_in_sorted_order(tmp_path):
    for name in ("b.txt", "a/z.jsonl", "a/b.npy", "c.md", ".hidden/d.txt", "a/.e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in find_files(str(tmp_path))] == [
        "a/b.npy",
        "a/z.jsonl",
        "b.txt",
    ]


def test_a_pattern_finds_files(tmp_path):
    for name in ("b.txt", "a.txt", "c.jsonl"):
        (tmp_path / name).touch()
    assert [path.name for path in find_files(str(tmp_path / "*.txt"))] == ["a.txt", "b.txt"]


def test_nothing_is_found_where_nothing_is(tmp_path):
    assert find_files(str(tmp_path / "absent.txt")) == []


def test_an_unknown_extension_is_answered_with_the_known_ones(tmp_path):
    path = write(tmp_path / "a.csv", "x")
    with pytest.raises(ValueError, match=r"extension '\.csv'.*\.txt, \.jsonl, \.json, \.parquet, \.npy"):
        find_files(str(path))


def test_a_folder_without_documents_is_refused(tmp_path):
    (tmp_path / "a.csv").touch()
    with pytest.raises(ValueError, match="holds no file of a known type"):
        find_files(str(tmp_path))


@pytest.mark.parametrize("n_bytes", [0, 1000, (1 << 20) + 5, 5 << 20])
def test_the_hash_of_the_ends_sees_first_byte_last_byte_and_size(tmp_path, n_bytes):
    content = bytearray(n_bytes)
    (tmp_path / "a").write_bytes(content)
    variants = [bytes(content), bytes(content) + b"\0"]
    if n_bytes:
        variants += [b"\1" + bytes(content[1:]), bytes(content[:-1]) + b"\1"]
    hashes = set()
    for variant in variants:
        (tmp_path / "a").write_bytes(variant)
        hashes.add(sha256_of_ends(tmp_path / "a"))
    assert len(hashes) == len(variants)
