"""The five tools of mcp-artifacts, and that nothing leads out of ``artifacts/``."""

import base64
import json
import os
import stat
import uuid

import pytest

from moonmind_queue.agentmux.vocabulary import ErrorCode

OK = {"ok": True}
EVIL = b"\x00\xff binary \r\n"
# Paths that are not below artifacts/, and why each might seem to be.
ASTRAY = [
    "secret.txt",  # beside it
    "state/events.jsonl",  # ours, and not an artifact
    "../secret.txt",
    "artifacts/../secret.txt",
    "artifacts/a/../../secret.txt",
    "artifacts/..",
    "./../secret.txt",
    "/etc/hostname",
    "//etc/hostname",
    "~/secret.txt",
    "Artifacts/x",
    "artifacts2/x",
    "artifacts\\..\\secret.txt",
    "artifacts/a\\b",
    "artifacts/a\0b",
    "artifacts/a\nb",
    "artifacts/link/secret.txt",  # a link to the folder outside
    "artifacts/direct.txt",  # a link to the file outside
]


@pytest.fixture(scope="module")
def artifacts(station, transport):
    """A client of the profile ``artifacts``, whose server knows of no database."""
    return station.peer("artifacts", transport, DATABASE_URL="")


@pytest.fixture
def place(artifacts):
    """A folder below artifacts/ that no other test has."""
    return f"artifacts/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def outside(station):
    """A file beside artifacts/, with a link to it and one to its folder; unharmed in the end."""
    folder = station.home / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    secret = station.home / "secret.txt"
    secret.write_text("secret")
    for name, target in (("link", station.home), ("direct.txt", secret)):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)
    around = set(station.home.parent.iterdir()), set(station.home.iterdir())
    yield secret
    assert secret.read_text() == "secret"
    assert (set(station.home.parent.iterdir()), set(station.home.iterdir())) == around


def encoded(content: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(content).decode()


def test_the_five_methods_are_listed(artifacts):
    """By their exact names and parameters; no database was needed for that."""
    tools = {tool.name: list(tool.input_schema["properties"]) for tool in artifacts.tools()}

    assert tools == {
        "put_artifact": ["path", "contentBase64"],
        "get_artifact": ["path"],
        "list_artifacts": ["dir", "pattern"],
        "write_json": ["path", "data"],
        "read_json": ["path"],
    }
    for tool in artifacts.tools():
        assert all(each["description"] for each in tool.input_schema["properties"].values())
    destroying = {tool.name for tool in artifacts.tools() if tool.annotations.destructive_hint}
    assert destroying == {"put_artifact", "write_json"}  # what was there is gone


def test_bytes_come_back_as_they_were_put(artifacts, station, place):
    """Whatever they are; for the eyes of the server's user only."""
    path = f"{place}/1-7/logs/out.bin"

    assert artifacts.call("put_artifact", path=path, contentBase64=encoded(EVIL)) == OK

    assert artifacts.call("get_artifact", path=path) == {
        "contentBase64": encoded(EVIL), "size": len(EVIL),
    }  # fmt: skip
    assert (station.home / path).read_bytes() == EVIL
    assert stat.S_IMODE((station.home / path).stat().st_mode) == 0o600
    assert stat.S_IMODE((station.home / place).stat().st_mode) == 0o700


def test_a_file_that_is_put_again_is_replaced(artifacts, place):
    """An empty one is a file, too; base64 may come in lines."""
    path = f"{place}/a"
    artifacts.call("put_artifact", path=path, contentBase64=encoded(b"one"))
    artifacts.call("put_artifact", path=path, contentBase64="")
    assert artifacts.call("get_artifact", path=path) == {"contentBase64": "", "size": 0}

    artifacts.call("put_artifact", path=path, contentBase64="dHdv\nMTIz\n")
    assert artifacts.call("get_artifact", path=path)["size"] == 6
    assert artifacts.call("list_artifacts", dir=place) == {"paths": [path]}


def test_json_is_written_for_people_too(artifacts, station, place):
    """Indented, in UTF-8, with a newline at the end; and it comes back as it was."""
    path, data = f"{place}/report.json", {"für": ["Eule 🦉", {"n": 1.5, "none": None}]}

    assert artifacts.call("write_json", path=path, data=data) == OK

    written = (station.home / path).read_text(encoding="utf-8")
    assert written == json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    assert artifacts.call("read_json", path=path) == {"data": data}
    artifacts.call("write_json", path=path, data=[1, 2])
    assert artifacts.call("read_json", path=path) == {"data": [1, 2]}


def test_files_are_listed_sorted_and_by_pattern(artifacts, station, place):
    """All below a folder; links and what is being written are not among them."""
    for name in ("b.json", "a/x.json", "a/logs/1.txt", "c.txt"):
        artifacts.call("put_artifact", path=f"{place}/{name}", contentBase64="")
    (station.home / place / "link.json").symlink_to(station.home / place / "b.json")
    (station.home / place / "way").symlink_to(station.home / place / "a")
    (station.home / place / ".b.json.0123abcd").write_text("half")

    def listed(**arguments):
        found = artifacts.call("list_artifacts", dir=place, **arguments)["paths"]
        return [path.removeprefix(f"{place}/") for path in found]

    assert listed() == ["a/logs/1.txt", "a/x.json", "b.json", "c.txt"]
    assert listed(pattern="*.json") == ["a/x.json", "b.json"]
    assert listed(pattern="logs/*.txt") == ["a/logs/1.txt"]
    assert listed(pattern="*/x.*") == ["a/x.json"]
    assert listed(pattern="nothing") == []
    assert artifacts.call("list_artifacts", dir=f"{place}/none") == {"paths": []}
    everything = artifacts.call("list_artifacts", dir="artifacts")["paths"]
    assert f"{place}/b.json" in everything
    assert everything == sorted(everything)


def test_a_list_has_every_name_that_a_call_can_have_and_no_other(artifacts, station, place):
    """Not a name with a line break, an escape for terminals, or bytes that are no UTF-8."""
    named = [f"{place}/{name}" for name in ("für dich.md", "n\u00a0b", "👩\u200d💻.md", "~a", "-b")]
    for path in named:
        artifacts.call("put_artifact", path=path, contentBase64="")
    folder = os.fsencode(station.home / place)
    for name in (b"a\nb", b"a\\b", b"\x1b[2J", "\x9b2J".encode(), b"\xff\xfe"):
        with open(folder + b"/" + name, "wb"):  # noqa: PTH123 - a path is text
            pass

    listed = artifacts.call("list_artifacts", dir=place)["paths"]

    assert listed == sorted(named)
    assert all(artifacts.call("get_artifact", path=path)["size"] == 0 for path in listed)


@pytest.mark.parametrize("path", ASTRAY)
def test_nothing_is_written_read_or_listed_outside(artifacts, outside, path):
    """Out-of-bounds paths are refused by each of the five, and what is there stays unknown."""
    for call, arguments in (
        ("put_artifact", {"path": path, "contentBase64": encoded(b"overwritten")}),
        ("write_json", {"path": path, "data": {}}),
        ("get_artifact", {"path": path}),
        ("read_json", {"path": path}),
    ):
        if path == "artifacts/direct.txt" and call in ("put_artifact", "write_json"):
            continue  # the link is replaced, not followed: the next test
        code, message = artifacts.refused(call, **arguments)
        assert code == ErrorCode.VALIDATION_ERROR, call
        assert "secret" not in message.replace("secret.txt", "")
    folder = path.rpartition("/")[0] or path
    if folder not in ("artifacts", "artifacts/a"):
        code, _ = artifacts.refused("list_artifacts", dir=folder)
        assert code == ErrorCode.VALIDATION_ERROR


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(artifacts, outside, station):
    """What it leads to is not touched."""
    link = station.home / "artifacts" / "direct.txt"

    assert artifacts.call("write_json", path="artifacts/direct.txt", data={"a": 1}) == OK

    assert not link.is_symlink()
    link.unlink()


@pytest.mark.parametrize("path", ["artifacts", "artifacts/", "/", ""])
def test_a_folder_is_no_file(artifacts, path):
    """Not the top one, and not by a path that names nothing."""
    for call, arguments in (
        ("put_artifact", {"contentBase64": ""}),
        ("get_artifact", {}),
        ("read_json", {}),
        ("write_json", {"data": {}}),
    ):
        assert artifacts.refused(call, path=path, **arguments)[0] == ErrorCode.VALIDATION_ERROR


def test_a_folder_below_is_no_file_and_a_file_no_folder(artifacts, place):
    """Neither to read nor to write."""
    artifacts.call("put_artifact", path=f"{place}/a/b", contentBase64="")

    for call, arguments in (
        ("get_artifact", {"path": f"{place}/a"}),
        ("put_artifact", {"path": f"{place}/a", "contentBase64": ""}),
        ("put_artifact", {"path": f"{place}/a/b/c", "contentBase64": ""}),
        ("put_artifact", {"path": f"{place}/{'x' * 300}", "contentBase64": ""}),
        ("list_artifacts", {"dir": f"{place}/a/b"}),
    ):
        assert artifacts.refused(call, **arguments)[0] == ErrorCode.VALIDATION_ERROR, arguments
    assert artifacts.call("list_artifacts", dir=place) == {"paths": [f"{place}/a/b"]}


def test_a_pipe_is_not_waited_for(artifacts, station, place):
    """Somebody with a shell may have put one there."""
    artifacts.call("put_artifact", path=f"{place}/a", contentBase64="")
    os.mkfifo(station.home / place / "pipe")

    code, message = artifacts.refused("get_artifact", path=f"{place}/pipe")

    assert (code, message) == (ErrorCode.VALIDATION_ERROR, f"{place}/pipe is no regular file")


def test_a_file_that_is_not_there_is_an_io_error(artifacts, place):
    """With the path as it was given."""
    for call in ("get_artifact", "read_json"):
        assert artifacts.refused(call, path=f"{place}/none.json") == (
            ErrorCode.IO_ERROR, f"{place}/none.json: No such file or directory",
        )  # fmt: skip


@pytest.mark.parametrize("text", ["a", "####", "aGVsbG8", "aGVs=bG8K", "aGVs bG8K", "_-8=", "ä"])
def test_what_is_no_base64_is_refused(artifacts, place, text):
    """Rather than stored as something else."""
    code, message = artifacts.refused("put_artifact", path=f"{place}/a", contentBase64=text)

    assert code == ErrorCode.VALIDATION_ERROR
    assert message.startswith("contentBase64 is no base64")
    assert artifacts.call("list_artifacts", dir=place) == {"paths": []}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "is no JSON"),
        (b"\xff\xfe\xfd", "is no JSON"),
        (b"NaN", "not JSON compliant"),
        (b'"\\ud800"', "surrogates not allowed"),
        (b"[" * 150 + b"]" * 150, "nested more than 100 levels deep"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_is_refused_and_the_server_lives_on(artifacts, place, content, told):
    """Also what Python takes for JSON and no client could read."""
    path = f"{place}/odd.json"
    artifacts.call("put_artifact", path=path, contentBase64=encoded(content))

    code, message = artifacts.refused("read_json", path=path)

    assert code == ErrorCode.VALIDATION_ERROR
    assert told in message
    assert artifacts.call("get_artifact", path=path)["size"] == len(content)


def test_what_could_not_be_read_again_is_not_written(artifacts, place):
    """JSON in more levels than an answer may have, a file in more folders than are listed."""
    data = deep = []
    for _ in range(85):
        data = [data]
    artifacts.call("write_json", path=f"{place}/a.json", data=data)
    assert artifacts.call("read_json", path=f"{place}/a.json") == {"data": data}
    for _ in range(95):
        deep = [deep]
    code, message = artifacts.refused("write_json", path=f"{place}/b.json", data=deep)
    assert code == ErrorCode.VALIDATION_ERROR
    assert message == "the call is nested more than 90 levels deep"

    far = f"{place}/{'d/' * 63}a"
    artifacts.call("put_artifact", path=far, contentBase64="")
    code, message = artifacts.refused(
        "put_artifact", path=f"{place}/{'d/' * 64}a", contentBase64=""
    )
    assert code == ErrorCode.VALIDATION_ERROR
    assert "more than 64 folders deep" in message
    assert artifacts.call("list_artifacts", dir=place)["paths"] == [f"{place}/a.json", far]


@pytest.mark.parametrize("data", ["text", 1, None, True])
def test_json_that_is_written_is_an_object_or_an_array(artifacts, place, data):
    """A document, not a word."""
    code, _ = artifacts.refused("write_json", path=f"{place}/a.json", data=data)

    assert code == ErrorCode.VALIDATION_ERROR


def test_files_have_a_size_that_settings_bound(own, transport):
    """To write, as base64 and as JSON, and to read; the largest that is allowed goes through."""
    small = own.peer("artifacts", transport, MOONMIND_ARTIFACT_MAX_BYTES="1000")
    path = "artifacts/a"
    small.call("put_artifact", path=path, contentBase64=encoded(b"x" * 1000))
    assert small.call("get_artifact", path=path)["size"] == 1000

    (own.home / "artifacts" / "large").write_bytes(b"x" * 1001)
    for call, arguments in (
        ("put_artifact", {"path": path, "contentBase64": encoded(b"x" * 1001)}),
        ("put_artifact", {"path": path, "contentBase64": encoded(b"x" * 5000)}),
        ("write_json", {"path": path, "data": ["x" * 1000]}),
        ("get_artifact", {"path": "artifacts/large"}),
        ("read_json", {"path": "artifacts/large"}),
    ):
        code, message = small.refused(call, **arguments)
        assert code == ErrorCode.VALIDATION_ERROR
        assert "1000" in message
    assert small.call("get_artifact", path=path)["size"] == 1000


def test_ten_mebibytes_go_through(own, transport):
    """The default limit fits through either transport."""
    content = os.urandom(1024) * 10 * 1024
    artifacts = own.peer("artifacts", transport)

    artifacts.call("put_artifact", path="artifacts/large", contentBase64=encoded(content))

    assert (own.home / "artifacts" / "large").read_bytes() == content
    assert artifacts.call("get_artifact", path="artifacts/large")["size"] == len(content)


def test_home_can_be_given_on_the_command_line(own, tmp_path):
    """--home wins over MOONMIND_AGENTMUX_HOME."""
    other = tmp_path / "other"

    peer = own.peer("artifacts", "stdio", "--home", str(other))
    peer.call("write_json", path="artifacts/a.json", data={})

    assert (other / "artifacts" / "a.json").is_file()
    assert not own.home.exists()
