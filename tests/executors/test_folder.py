"""The directory of an attempt is fresh, and is gone afterwards whatever is in it."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from moonmind_queue.executors.folder import Folder, remove_leftovers, remove_tree

LEVELS = 3000  # deeper than Python recurses, and than any path may be long


def test_a_fresh_one_for_each_attempt(tmp_path: Path):
    """What an earlier attempt left is gone when the next begins, and so is a job's empty folder."""
    first = Folder.create(tmp_path, 7, 1)
    (first.path / "left").touch()
    os.close(first.lock)  # as if its worker had died

    second = Folder.create(tmp_path, 7, 2)

    assert [each.name for each in (tmp_path / "7").iterdir()] == ["2"]
    assert [each.name for each in second.path.iterdir()] == ["lock"]
    assert second.path.stat().st_mode & 0o777 == 0o700
    second.close()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_never_taken_through_a_link(tmp_path: Path):
    """A job that puts a link in the place of the lock does not have a file made elsewhere."""
    from moonmind_queue.executors.folder import lock

    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic links"):
        lock(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["²", "٣", "1a", "-1", "9" * 250])
def test_names_that_are_no_numbers_are_somebody_elses(tmp_path: Path, name: str):
    """A program that may write above its directory cannot have the next start fail."""
    other = tmp_path / "7" / name
    other.mkdir(parents=True)

    remove_leftovers(tmp_path, timedelta(days=1))
    Folder.create(tmp_path, 7, 2).close()

    assert other.exists() == (name != "9" * 250)


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A directory three thousand levels deep, with a file and a link at its end."""
    top = tmp_path / "top"
    top.mkdir()
    (tmp_path / "kept").mkdir()
    folder = os.open(top, os.O_RDONLY)
    for _ in range(LEVELS):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.symlink(tmp_path / "kept", "link", dir_fd=folder)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    return top


def test_a_deep_tree_is_removed(deep: Path):
    """Depth beyond recursion and beyond the longest path is no way to stay."""
    remove_tree(deep)

    assert not deep.exists()
    assert (deep.parent / "kept").is_dir()


def test_a_link_is_removed_and_not_followed(tmp_path: Path):
    """Where a directory should be and a link is, only the link goes."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")

    remove_tree(tmp_path / "link")

    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "kept" / "file").exists()
