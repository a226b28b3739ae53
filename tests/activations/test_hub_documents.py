import pytest

from sae_toolkit.activations import hub_documents
from sae_toolkit.activations.documents import HubDocuments, open_documents

datasets = pytest.importorskip("datasets", exc_type=ImportError)
huggingface_hub = pytest.importorskip("huggingface_hub", exc_type=ImportError)

TEXTS = [f"document {i}" for i in range(600)]


def table(n=600):
    return datasets.Dataset.from_dict({"text": TEXTS[:n], "id": list(range(n))})


def hub(path, **changes):
    choices = {
        "subset": None,
        "hub_split": "train",
        "text_field": "text",
        "separator": "<|endoftext|>",
        "offline": True,
    }
    return open_documents(str(path), **(choices | changes))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The local cache of `datasets`, as it looks after "owner/tiny" was loaded once."""
    folder = tmp_path / "owner___tiny/default/0.0.0/0123abcd"
    folder.mkdir(parents=True)
    columns = datasets.Features({"text": datasets.Value("string")})
    with datasets.arrow_writer.ArrowWriter(path=str(folder / "tiny-train.arrow"), features=columns) as writer:
        for text in TEXTS:
            writer.write({"text": text})
        writer.finalize()
    splits = [{"name": "train", "num_examples": len(TEXTS), "dataset_name": "tiny"}]
    datasets.DatasetInfo(
        features=columns,
        builder_name="json",
        dataset_name="tiny",
        config_name="default",
        version=datasets.Version("0.0.0"),
        splits=datasets.SplitDict.from_split_dict(splits),
    ).write_to_directory(str(folder))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)


@pytest.mark.parametrize("start", [0, 5, 255, 256, 599, 600, 700])
def test_a_data_set_is_read_from_any_number_on(start):
    assert list(HubDocuments(table()).iterate(start)) == TEXTS[start:]


@pytest.mark.parametrize("start", [0, 5, 600, 700])
def test_a_streamed_data_set_is_read_from_any_number_on(start):
    assert list(HubDocuments(table().to_iterable_dataset()).iterate(start)) == TEXTS[start:]


def test_token_ids_may_be_a_column():
    documents = HubDocuments(datasets.Dataset.from_dict({"input_ids": [[1, 2], [3]]}), "input_ids")
    assert [ids.tolist() for ids in documents.iterate(0)] == [[1, 2], [3]]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_wrong_column_is_answered_with_those_that_exist(streamed):
    data = table(3).to_iterable_dataset() if streamed else table(3)
    with pytest.raises(ValueError, match=r"no field 'texts', it has text, id\. Did you mean text_field='text'"):
        HubDocuments(data, "texts")


def test_the_fields_of_a_stream_without_announced_columns_are_checked():
    data = datasets.IterableDataset.from_generator(lambda: iter([{"body": "a"}]))
    with pytest.raises(ValueError, match="no field 'text', it has body"):
        HubDocuments(data)


def test_an_empty_data_set_is_refused():
    with pytest.raises(ValueError, match="holds no document"):
        HubDocuments(table(0))


def test_a_dictionary_of_splits_is_refused():
    with pytest.raises(ValueError, match="Of a DatasetDict choose one split"):
        HubDocuments(datasets.DatasetDict({"train": table(3)}))


def test_another_data_set_is_described_differently():
    described = [HubDocuments(data).describe() for data in (table(4), table(4), table(5))]
    assert described[0] == described[1]
    assert described[0] != described[2]


def test_a_stream_without_description_is_told_by_its_first_documents():
    described = [HubDocuments(table(n).to_iterable_dataset()).describe() for n in (4, 4, 5)]
    assert described[0] == described[1]
    assert described[0] != described[2]


def test_a_saved_data_set_is_opened(tmp_path):
    table().save_to_disk(str(tmp_path / "saved"))
    documents = hub(tmp_path / "saved")
    assert list(documents.iterate(598)) == TEXTS[598:]
    assert documents.describe()["path"] == str(tmp_path / "saved")


def test_of_a_saved_dictionary_the_split_asked_for_is_opened(tmp_path):
    datasets.DatasetDict({"train": table(), "validation": table(2)}).save_to_disk(str(tmp_path / "saved"))
    assert list(hub(tmp_path / "saved", hub_split="validation").iterate(0)) == TEXTS[:2]
    with pytest.raises(ValueError, match=r"'test' asked of .* but it holds train, validation"):
        hub(tmp_path / "saved", hub_split="test")


def test_offline_a_data_set_comes_from_the_local_cache(cache):
    documents = hub("owner/tiny")
    assert list(documents.iterate(590)) == TEXTS[590:]
    assert documents.describe()["hub_id"] == "owner/tiny"


def test_the_cached_data_set_is_described_the_same_each_time(cache):
    assert hub("owner/tiny").describe() == hub("owner/tiny").describe()


@pytest.mark.parametrize(
    ("name", "changes"), [("owner/absent", {}), ("owner/tiny", {"hub_split": "test"}), ("owner/tiny", {"subset": "en"})]
)
def test_offline_what_is_not_in_the_cache_is_refused(cache, name, changes):
    with pytest.raises(ValueError, match=r"offline, and there is neither a file .* Give a local file"):
        hub(name, **changes)


@pytest.mark.parametrize(
    ("asked_for", "revision"), [("owner/tiny", None), ("owner/tiny@refs/convert/parquet", "refs/convert/parquet")]
)
def test_from_the_hub_a_data_set_is_streamed_at_the_commit_it_is_described_by(monkeypatch, asked_for, revision):
    asked = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    class Api:
        def dataset_info(self, name, revision):
            asked.append(revision)
            return huggingface_hub.hf_api.DatasetInfo(id=name, sha="c0ffee", tags=[])

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        return table().to_iterable_dataset()

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    documents = hub(asked_for, offline=False, subset="en", hub_split="validation")
    assert asked == [revision, (("owner/tiny", "en"), {"split": "validation", "streaming": True, "revision": "c0ffee"})]
    assert documents.describe() == {
        "kind": "data set",
        "hub_id": asked_for,
        "subset": "en",
        "hub_split": "validation",
        "commit": "c0ffee",
        "text_field": "text",
    }


def test_a_data_set_the_hub_does_not_give_is_refused_in_one_line(monkeypatch):
    def load_dataset(*arguments, **options):
        raise datasets.exceptions.DatasetNotFoundError("no such thing")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", load_dataset)
    with pytest.raises(ValueError, match=r"'owner/absent'.* could not be opened \(DatasetNotFoundError: no such thing"):
        hub("owner/absent", offline=False)


def test_versions_that_run_code_of_data_sets_are_refused(monkeypatch):
    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    with pytest.raises(ValueError, match=r"needs datasets >= 4 .*3\.6\.0 is installed"):
        hub("owner/tiny")


def test_an_absent_library_is_named(monkeypatch):
    monkeypatch.setitem(hub_documents.sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"needs datasets: pip install 'sae-toolkit\[lm\]'"):
        hub("owner/tiny")


def test_where_the_environment_forbids_the_network_the_cache_is_read(cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert len(list(hub("owner/tiny", offline=False).iterate(0))) > 0
