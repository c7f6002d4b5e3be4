"""The folder of Agentmux: any id has a place in it, and nothing is written outside."""

import stat

import pytest

from moonmind_queue import InvalidArgument
from moonmind_queue.agentmux.folder import Folder, run_folder, safe_name

IDS = [
    "spec:write", "a", "A", "a/b", "../x", "..", ".", "", " ", "-rf", "~", "a\0b", "a\nb", "a\\b",
    "CON", "ü", "x" * 500, "x" * 499 + "y", "%2E", ".hidden", "a%2Fb", "C:\\x", "/etc/passwd",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A folder that is not there yet."""
    return Folder(tmp_path / "home")


def test_every_id_has_a_name_of_its_own():
    """One path component that no file system minds, short enough, and never a way out."""
    names = [safe_name(given) for given in IDS]

    assert len(set(names)) == len(IDS)
    for name in names:
        assert name not in (".", "..")
        assert not set(name) & set("/\\\0\n")
        assert 0 < len(name.encode()) <= 120
    assert names[0] == "spec:write"


@pytest.mark.parametrize("given", IDS)
def test_the_files_of_a_run_are_below_the_folder(folder, given, tmp_path):
    """Whatever the task is called."""
    folder.write(f"{run_folder(given, '1-7')}/logs/run.txt", b"x")

    [written] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written.parts[-4:] == (safe_name(given), "1-7", "logs", "run.txt")
    assert written.is_relative_to(folder.root / "artifacts")


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x", "a//b", "", "a/", "./x", "a\0b"])
def test_a_path_that_leads_elsewhere_is_refused(folder, tmp_path, path):
    """And nothing is written."""
    with pytest.raises(InvalidArgument):
        folder.write(path, b"x")

    assert not [each for each in tmp_path.rglob("*") if each.is_file()]


def test_links_are_not_followed(folder, tmp_path):
    """Neither one to a folder on the way nor one in the place of the file."""
    outside = tmp_path / "outside"
    outside.mkdir()
    folder.write("state/first", b"x")
    (folder.root / "artifacts").symlink_to(outside)
    (folder.root / "state" / "events.jsonl").symlink_to(outside / "file")

    with pytest.raises(InvalidArgument, match="'artifacts' below home is no directory"):
        folder.write("artifacts/a/1-1/x", b"x")
    folder.write("state/events.jsonl", b"x")
    with pytest.raises(OSError, match="symbolic link"):
        (folder.root / "state" / "link").symlink_to(outside / "file")
        folder.appending("state/link")

    assert list(outside.iterdir()) == []
    assert not (folder.root / "state" / "events.jsonl").is_symlink()


def test_only_the_owner_may_read(folder):
    """Folders and files: prompts and results of agents are nobody else's business."""
    folder.write_json("state/heartbeats/codex.json", {"a": 1})
    folder.appending("artifacts/a/1-1/live/stdout.log").close()

    for path in (folder.root, *folder.root.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_file_is_there_whole_or_not_at_all(folder):
    """What fails on the way leaves the old one and no rest."""
    folder.write("state/status.md", b"old")

    with pytest.raises(RuntimeError), folder.writing("state/status.md") as file:
        file.write(b"half")
        raise RuntimeError

    assert (folder.root / "state" / "status.md").read_bytes() == b"old"
    assert [path.name for path in (folder.root / "state").iterdir()] == ["status.md"]


def test_a_large_file_is_copied_and_found_again(folder, tmp_path):
    """By its size; a link in its place is not it."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    folder.copy("artifacts/a/1-1/big", source)
    (folder.root / "artifacts" / "a" / "1-1" / "link").symlink_to(source)

    assert folder.has("artifacts/a/1-1/big", 3_000_000)
    assert not folder.has("artifacts/a/1-1/big", 3)
    assert not folder.has("artifacts/a/1-1/link", 3_000_000)
    assert not folder.has("artifacts/a/1-1/none", 0)


def test_what_is_read_is_a_regular_file_of_bounded_size(folder):
    """Nothing is made by looking; a link, a folder and too many bytes are refused by name."""
    with pytest.raises(FileNotFoundError):
        folder.read("state/status.md", 10)
    assert list(folder.files("state")) == []
    assert not folder.root.exists()

    folder.write("state/status.md", b"0123456789")
    (folder.root / "state" / "link").symlink_to("status.md")
    assert folder.read("state/status.md", 10) == b"0123456789"
    for path, limit, told in (
        ("state/status.md", 9, "state/status.md has more than the 9 bytes"),
        ("state/link", 10, "state/link is a link"),
        ("state", 10, "state is no regular file"),
        ("state/status.md/x", 10, "'status.md' below home is no directory"),
    ):
        with pytest.raises(InvalidArgument, match=told):
            folder.read(path, limit)
    with pytest.raises(FileNotFoundError):
        folder.read("none/status.md", 10)
    assert [each.name for each in folder.root.iterdir()] == ["state"]


def test_files_are_found_below_a_folder_and_links_are_not_followed(folder, tmp_path):
    """However deep, up to 64 folders; not those that are being written."""
    deep = "/".join(["artifacts", *["d"] * 64])
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    for path in ("artifacts/b", "artifacts/a/1-1/x", f"{deep}/in", f"{deep}/d/too-deep"):
        folder.write(path, b"")
    (folder.root / "artifacts" / "away").symlink_to(tmp_path / "outside")
    (folder.root / "artifacts" / "link").symlink_to(tmp_path / "outside" / "secret")

    with folder.writing("artifacts/half"):
        assert list(folder.files("artifacts")) == [
            "artifacts/a/1-1/x", "artifacts/b", f"{deep}/in",
        ]  # fmt: skip
    with pytest.raises(InvalidArgument):
        list(folder.files("artifacts/away"))
