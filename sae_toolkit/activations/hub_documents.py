"""Data sets of the Hugging Face library `datasets`: from the hub, from its local cache, or saved to a folder."""

import re
import sys
from pathlib import Path
from typing import Any

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(@[\w./-]+)?")
"""A data set on the hub, and after an @ the branch, tag or commit of it."""
OLDEST_MAJOR = 4
"""Earlier versions of `datasets` could run a data set's own Python code; this one cannot."""


def one_line(error: Exception) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split())


def import_datasets(what: str) -> Any:
    """The library `datasets`; where it is absent or too old, a ValueError that says what needs it."""
    try:
        import datasets  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        raise ValueError(f"documents: {what} needs datasets: pip install 'sae-toolkit[lm]'.") from error
    if int(datasets.__version__.partition(".")[0]) < OLDEST_MAJOR:
        raise ValueError(
            f"documents: {what} needs datasets >= {OLDEST_MAJOR} (earlier ones run code out of data sets), but "
            f"{datasets.__version__} is installed: pip install -U 'sae-toolkit[lm]'."
        )
    return datasets


def is_data_set(value: Any) -> bool:
    """Whether this is a data set of `datasets`, without importing the library where nobody has."""
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(value, datasets.Dataset | datasets.IterableDataset)


def is_map_style(dataset: Any) -> bool:
    """Whether rows can be reached by their number (`Dataset`), not only in order (`IterableDataset`)."""
    return isinstance(dataset, import_datasets("a data set").Dataset)


def is_saved_data_set(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return (path / "dataset_dict.json").is_file() or all(
        (path / name).is_file() for name in ("state.json", "dataset_info.json")
    )


def load_saved(path: Path, hub_split: str) -> Any:
    """A folder written by `save_to_disk`; of a folder with several splits, the one asked for."""
    datasets = import_datasets(f"{path}, a folder of save_to_disk,")
    loaded = datasets.load_from_disk(str(path))
    if isinstance(loaded, datasets.DatasetDict):
        if hub_split not in loaded:
            raise ValueError(f"documents: hub_split={hub_split!r} asked of {path}, but it holds {', '.join(loaded)}.")
        return loaded[hub_split]
    return loaded


def network_is_forbidden() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network to everything of Hugging Face."""
    import_datasets("a data set of the hub")
    from huggingface_hub import constants  # noqa: PLC0415 - comes with datasets

    return bool(constants.HF_HUB_OFFLINE)


def load_from_hub(hub_id: str, subset: str | None, hub_split: str) -> tuple[Any, str]:
    """The data set, streamed, and its commit on the hub: what is read later is what was described."""
    repository, _, revision = hub_id.partition("@")
    datasets = import_datasets(f"the hub's data set {hub_id!r}")
    from huggingface_hub import HfApi  # noqa: PLC0415 - comes with datasets

    try:
        commit = HfApi().dataset_info(repository, revision=revision or None).sha
        return datasets.load_dataset(repository, subset, split=hub_split, streaming=True, revision=commit), str(commit)
    except Exception as error:  # whatever fails between here and the hub, the user needs these three ways out
        raise ValueError(
            f"documents: there is no file or folder {hub_id!r}, and the hub's data set of that name (subset="
            f"{subset!r}, hub_split={hub_split!r}) could not be opened ({type(error).__name__}: {one_line(error)}). "
            "Check name, subset and split, set offline=True if it was loaded before, or give a local file or folder."
        ) from error


def load_from_cache(hub_id: str, subset: str | None, hub_split: str) -> Any:
    """The data set from the local cache of `datasets`, without any request to the network.

    `load_dataset` itself offers no call that stays offline unless an environment variable was set before it was
    imported; the builder it falls back on without network is used directly.
    """
    datasets = import_datasets(f"the hub's data set {hub_id!r}")
    from datasets.packaged_modules.cache.cache import Cache  # noqa: PLC0415 - optional

    repository = hub_id.partition("@")[0]
    name = repository.rpartition("/")[2]
    try:
        builder = Cache(dataset_name=name, config_name=subset, version="auto", hash="auto", repo_id=repository)
        return builder.as_dataset(split=hub_split)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"documents: offline, and there is neither a file or folder {hub_id!r} nor a data set of that name "
            f"(subset={subset!r}, hub_split={hub_split!r}) in the cache {datasets.config.HF_DATASETS_CACHE} "
            f"({one_line(error)}). Give a local file or folder, or call datasets.load_dataset({hub_id!r}) with network."
        ) from error
