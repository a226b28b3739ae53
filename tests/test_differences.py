from sae_toolkit.differences import differences, without_labels


def test_every_leaf_that_differs_is_named() -> None:
    saved = {"a": 1, "b": {"c": [1, 2], "d": "x"}, "gone": True}
    asked = {"a": 1, "b": {"c": [1, 3], "d": "x"}, "new": 0}
    assert differences(saved, asked) == [
        "b.c[1]: saved 2, asked 3",
        "gone: saved True, asked None",
        "new: saved None, asked 0",
    ]


def test_lists_of_other_lengths_differ_as_a_whole() -> None:
    assert differences([1], [1, 2], "k") == ["k: saved [1], asked [1, 2]"]


def test_labels_are_texts_called_name_or_path_at_any_depth() -> None:
    described = {"name": "x", "model": {"path": "here", "size": 3}, "parts": [{"name": "y", "n": 1}], "path": {"k": 0}}
    assert without_labels(described) == {"model": {"size": 3}, "parts": [{"n": 1}], "path": {"k": 0}}
