"""Files and folders appear whole or not at all."""

from pathlib import Path

import pytest

from sae_toolkit.atomic_write import atomic_folder, atomic_write_text


def test_a_folder_appears_with_all_its_files(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with atomic_folder(target) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text("contents")
        assert not target.exists()
    assert (target / "inner" / "file").read_text() == "contents"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_exception_leaves_the_old_folder(error: BaseException, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "old").write_text("old")

    def fail() -> None:
        with atomic_folder(tmp_path / "target") as temporary:
            (temporary / "new").write_text("new")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "old"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with atomic_folder(tmp_path / "target") as temporary:
            (temporary / name).write_text(name)
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "new"]


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    for text in ("first", "second, größer"):
        atomic_write_text(tmp_path / "deep" / "file", text)
        assert (tmp_path / "deep" / "file").read_text(encoding="utf-8") == text
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_failing_text_leaves_what_was_there(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        atomic_write_text(tmp_path / "file", "\ud800")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"
