import itertools
import json
import sys

import numpy as np
import pytest

from sae_toolkit.activations.documents import (
    Cursor,
    FileDocuments,
    GivenDocuments,
    HubDocuments,
    as_documents,
    open_documents,
)

TEXTS = [f"text {i}" for i in range(70)]


def opened(path, **changes):
    choices = {
        "subset": None,
        "hub_split": "train",
        "text_field": "text",
        "separator": "<|endoftext|>",
        "offline": True,
    }
    return open_documents(str(path), **(choices | changes))


def corpus(folder):
    """Seven documents in four files, in the order of their paths."""
    (folder / "b").mkdir(parents=True)
    (folder / "a.txt").write_text("a0<|endoftext|>a1")
    (folder / "b/c.jsonl").write_text('"c0"\n"c1"')
    np.save(folder / "b/d.npy", np.array([[1, 2], [3, 4]]))
    (folder / "e.json").write_text('["e0"]')
    return folder


def plain(documents):
    return [document if isinstance(document, str) else document.tolist() for document in documents]


GIVEN = {"list": list, "function": lambda texts: lambda: iter(texts), "iterator": iter}


@pytest.mark.parametrize("form", GIVEN)
@pytest.mark.parametrize("start", [0, 3, 69, 70, 100])
def test_given_documents_are_read_from_any_number_on(form, start):
    documents = GivenDocuments(GIVEN[form](TEXTS))
    assert list(documents.iterate(start)) == TEXTS[start:]
    assert list(documents.iterate(start)) == TEXTS[start:]


@pytest.mark.parametrize("form", GIVEN)
def test_two_passes_over_given_documents_may_be_under_way_at_once(form):
    documents = GivenDocuments(GIVEN[form](TEXTS))
    first, second = documents.iterate(0), documents.iterate(2)
    mixed = [next(first), next(second), next(first), next(second), next(second), next(first)]
    assert mixed == [TEXTS[i] for i in (0, 2, 1, 3, 4, 2)]


def test_a_one_shot_iterator_is_read_no_further_than_needed():
    numbers = itertools.count()
    documents = GivenDocuments(f"text {number}" for number in numbers)
    assert list(itertools.islice(documents.iterate(0), 3)) == TEXTS[:3]
    assert next(numbers) == 3


def test_a_function_that_returns_one_iterator_again_and_again_is_refused():
    once = iter(TEXTS)
    with pytest.raises(ValueError, match="the same iterator twice"):
        GivenDocuments(lambda: once)


def test_an_array_gives_one_document_per_row():
    assert plain(GivenDocuments(np.array([[1, 2], [3, 4]])).iterate(1)) == [[3, 4]]


@pytest.mark.parametrize("form", GIVEN)
def test_an_empty_corpus_is_refused(form):
    with pytest.raises(ValueError, match=rf"the {form} given holds no document"):
        GivenDocuments(GIVEN[form]([]))


@pytest.mark.parametrize("given", ["a single text", {"text": "a"}, {"a", "b"}, b"bytes"])
def test_what_has_no_order_of_documents_is_refused(given):
    with pytest.raises(ValueError, match="a list of texts is needed"):
        as_documents(given, "text")


def test_a_number_is_no_corpus():
    with pytest.raises(ValueError, match="int given, but a list of texts is needed"):
        as_documents(3, "text")


def test_a_document_that_is_no_text_is_named():
    documents = GivenDocuments(["fine", None])
    with pytest.raises(ValueError, match="document 1 is NoneType"):
        list(documents.iterate(0))


@pytest.mark.parametrize("form", GIVEN)
def test_given_documents_are_described_by_their_content(form):
    described = [GivenDocuments(GIVEN[form](texts)).describe() for texts in (TEXTS, TEXTS, ["other", *TEXTS[1:]])]
    assert json.dumps(described[0]) == json.dumps(described[1])
    assert described[0] != described[2]


def test_the_last_document_of_a_list_is_described_too():
    assert GivenDocuments(TEXTS).describe() != GivenDocuments([*TEXTS[:-1], "other"]).describe()


def test_documents_cut_elsewhere_are_described_differently():
    assert GivenDocuments(["ab", "c"]).describe() != GivenDocuments(["a", "bc"]).describe()


def test_documents_that_are_documents_stay_as_they_are():
    documents = GivenDocuments(TEXTS)
    assert as_documents(documents, "text") is documents


def test_a_data_set_is_read_by_the_column_asked_for():
    datasets = pytest.importorskip("datasets", exc_type=ImportError)
    documents = as_documents(datasets.Dataset.from_dict({"body": ["a", "b"]}), "body")
    assert isinstance(documents, HubDocuments)
    assert list(documents.iterate(0)) == ["a", "b"]


@pytest.mark.parametrize("start", range(9))
def test_a_folder_is_read_file_after_file(tmp_path, start):
    every = ["a0", "a1", "c0", "c1", [1, 2], [3, 4], "e0"]
    assert plain(opened(corpus(tmp_path)).iterate(start)) == every[start:]


def test_a_pattern_chooses_files(tmp_path):
    assert plain(opened(corpus(tmp_path) / "**/*.json*").iterate(0)) == ["c0", "c1", "e0"]


def test_files_are_described_by_their_names_sizes_and_content(tmp_path):
    described = opened(corpus(tmp_path)).describe()
    assert described["path"] == str(tmp_path)
    assert list(described["files"]) == ["a.txt", "b/c.jsonl", "b/d.npy", "e.json"]
    assert described["files"]["a.txt"]["bytes"] == len("a0<|endoftext|>a1")
    assert json.loads(json.dumps(described)) == described


def test_the_same_files_elsewhere_are_described_the_same_but_for_the_path(tmp_path):
    first, second = (opened(corpus(tmp_path / name)).describe() for name in ("x", "y"))
    assert first["files"] == second["files"]


def test_a_changed_file_is_described_differently(tmp_path):
    before = opened(corpus(tmp_path)).describe()
    (tmp_path / "e.json").write_text('["e1"]')
    assert opened(tmp_path).describe() != before


def test_a_description_that_was_handed_out_cannot_change_the_next(tmp_path):
    documents = opened(corpus(tmp_path))
    documents.describe().clear()
    assert documents.describe()["kind"] == "files"


@pytest.mark.parametrize("content", ["", " \n", "<|endoftext|>\n<|endoftext|>"])
def test_a_file_without_documents_is_refused(tmp_path, content):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(ValueError, match="holds no document"):
        opened(tmp_path / "a.txt")


def test_a_wrong_field_is_told_when_the_file_is_opened(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"txt": "a"}')
    with pytest.raises(ValueError, match="no field 'text', it has txt"):
        opened(tmp_path / "a.jsonl")


@pytest.mark.parametrize("path", ["absent.txt", "a/b/absent", "/absent", "./absent", "absent/*.txt"])
def test_a_path_that_is_neither_there_nor_a_name_on_the_hub_is_refused(path):
    with pytest.raises(ValueError, match="does not exist, and is no name of a data set on the hub"):
        opened(path)


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(ValueError, match="an empty path given"):
        opened("")


def test_plain_files_need_no_datasets_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert isinstance(opened(corpus(tmp_path)), FileDocuments)


def test_a_cursor_gives_all_documents_in_batches(monkeypatch):
    monkeypatch.setattr("sae_toolkit.activations.documents.CHARACTERS_PER_BATCH", 14)
    cursor = Cursor(GivenDocuments(TEXTS[:6]), 1)  # six characters each: three reach 14
    assert [cursor.take(), cursor.take(), cursor.take()] == [TEXTS[1:4], TEXTS[4:6], []]
    assert cursor.number == 6


def test_documents_given_back_to_a_cursor_come_again():
    cursor = Cursor(GivenDocuments(TEXTS[:5]), 0)
    cursor.give_back(cursor.take()[3:])
    assert cursor.number == 3
    assert not cursor.at_end()
    assert cursor.take() == TEXTS[3:5]
    assert cursor.at_end()


def test_asking_a_cursor_for_the_end_loses_no_document():
    cursor = Cursor(GivenDocuments(TEXTS[:2]), 0)
    assert not cursor.at_end()
    assert cursor.number == 0
    assert [*cursor.take(), *cursor.take()] == TEXTS[:2]
