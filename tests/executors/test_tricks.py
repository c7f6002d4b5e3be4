"""Every way around the allowlist that we could think of, tried on the real executor.

One harmless program is allowed: ``witness``, which notes that it was started and prints each of
its arguments between angle brackets. Whatever a trick would achieve makes a file, the marker. A
row says what the job asks for, what has to become of it, and why it fails:

``REFUSED``   no entry of the allowlist covers it: ``Block``, before anything is started
``INVALID``   it is no payload: ``InvalidPayload``, for producer and worker alike
a list        the witness runs, and these are its arguments, letter by letter

In texts, ``{marker}`` is the marker, ``{folder}`` where everything lies: ``bin/witness``,
``elsewhere/witness`` (makes the marker), ``elsewhere/link`` and ``elsewhere/hard`` (to the
witness), ``elsewhere/copy`` (of it), ``bin/evil`` (on the worker's PATH too, makes the marker).
"""

from typing import Any

import pytest

from moonmind_queue.errors import InvalidPayload
from moonmind_queue.executors import Block

REFUSED, INVALID = "refused", "invalid"

Row = tuple[Any, Any, str]

# --- another program, or the same by another name ------------------------------------------------

NAMES: list[Row] = [
    ("evil", REFUSED, "on PATH, but not in the list"),
    ("{folder}/bin/evil", REFUSED, "an absolute path is no entry either"),
    ("./witness", REFUSED, "a relative path is never an entry"),
    ("../../../bin/witness", REFUSED, "nor one that leads to the very program"),
    ("bin/witness", REFUSED, "nor one without a dot"),
    ("witness/", REFUSED, "a slash at the end is another spelling"),
    ("/{folder}/bin/witness", REFUSED, "two slashes at the beginning are another spelling"),
    ("{folder}//bin/witness", REFUSED, "and so are two in the middle"),
    ("{folder}/bin/./witness", REFUSED, "paths are compared, not normalised"),
    ("{folder}/elsewhere/../bin/witness", REFUSED, "nor resolved"),
    ("{folder}/bin/witness/", REFUSED, "a slash at the end of a path"),
    ("/proc/self/root{folder}/bin/witness", REFUSED, "a detour that leads to the same file"),
    ("/proc/self/cwd/witness", REFUSED, "a detour that depends on who looks"),
    ("{folder}/elsewhere/link", REFUSED, "a link to the program is another path"),
    ("{folder}/elsewhere/hard", REFUSED, "a second name of the same inode is another path"),
    ("{folder}/elsewhere/copy", REFUSED, "the same bytes elsewhere are another program"),
    ("{folder}/elsewhere/witness", REFUSED, "the name alone does not make the program"),
    ("WITNESS", REFUSED, "case counts"),
    (["witness "], REFUSED, "a blank at the end is part of the name"),
    ([" witness"], REFUSED, "and so is one at the beginning"),
    (["witness\n"], REFUSED, "a line break, which `$` in a pattern would have let pass"),
    (["witness\t-x"], REFUSED, "a list is not cut into words"),
    (["witness -x"], REFUSED, "nor at blanks"),
    ("w\N{CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I}tness", REFUSED, "it only looks the same"),
    ("\N{FULLWIDTH LATIN SMALL LETTER W}itness", REFUSED, "letters are not folded (NFKC)"),
    ("witness\N{ZERO WIDTH SPACE}", REFUSED, "what cannot be seen counts"),
    ("wit\N{SOFT HYPHEN}ness", REFUSED, "and so does what is only a hint"),
    ("\N{RIGHT-TO-LEFT OVERRIDE}ssentiw", REFUSED, "how it is shown does not matter"),
    ("witness\N{NO-BREAK SPACE}x", REFUSED, "no word ends at this blank"),
    ("witness%00", REFUSED, "nothing is decoded"),
    ("%77itness", REFUSED, "nothing is decoded here either"),
    ("file://{folder}/bin/witness", REFUSED, "a URL is not a path"),
    ("witness.exe", REFUSED, "no suffix is added or taken away"),
    ("C:\\\\bin\\\\witness", REFUSED, "nor a drive"),
    (".", REFUSED, "a directory"),
    ("..", REFUSED, "another"),
    ("/", REFUSED, "and the root"),
    ("-witness", REFUSED, "a dash makes no option of a program"),
    (["--", "witness"], REFUSED, "there is no command line before the program"),
    ("@witness", REFUSED, "no file of arguments is read"),
]  # fmt: skip

# --- a program that would start another ----------------------------------------------------------

RUNNERS: list[Row] = [
    ("env witness", REFUSED, "env runs whatever follows; it is a program like any other"),
    ("/usr/bin/env -i {folder}/bin/evil", REFUSED, "by its path too"),
    (["sh", "-c", "touch {marker}"], REFUSED, "a shell is a program like any other"),
    (["/bin/sh", "-c", "touch {marker}"], REFUSED, "by its path too"),
    (["bash", "--rcfile", "{folder}/bin/evil", "-i"], REFUSED, "and any other shell"),
    (["busybox", "touch", "{marker}"], REFUSED, "a program of many names"),
    (["python3", "-c", "open('{marker}', 'w')"], REFUSED, "an interpreter"),
    (["python3", "{folder}/bin/witness"], REFUSED, "an interpreter, even for an allowed script"),
    (["sh", "{folder}/bin/witness"], REFUSED, "and even the one that the script names itself"),
    (["perl", "-e", "open F, '>{marker}'"], REFUSED, "another interpreter"),
    (["xargs", "witness"], REFUSED, "what builds commands from its input"),
    (["find", "/", "-maxdepth", "0", "-exec", "touch", "{marker}", ";"], REFUSED, "what runs them"),
    (["timeout", "5", "witness"], REFUSED, "what wraps another program"),
    (["nohup", "{folder}/bin/evil"], REFUSED, "what outlives its caller"),
    (["setsid", "-f", "{folder}/bin/evil"], REFUSED, "what leaves the session"),
    (["sudo", "witness"], REFUSED, "what becomes somebody else"),
    (["/lib64/ld-linux-x86-64.so.2", "{folder}/bin/evil"], REFUSED, "the loader runs any binary"),
    (["/proc/self/exe", "-c", "open('{marker}', 'w')"], REFUSED, "the worker's own interpreter"),
    (["/dev/stdin"], REFUSED, "a descriptor is no program"),
    (["/dev/fd/3"], REFUSED, "whatever it leads to"),
    (["/proc/self/fd/0"], REFUSED, "by whatever path"),
]

# --- the language of shells, in the place of the program -----------------------------------------

PROGRAMS: list[Row] = [
    ("LD_PRELOAD=/tmp/evil.so witness", REFUSED, "an assignment is not one: it is the first word"),
    ("PATH={folder}/elsewhere witness", REFUSED, "so PATH cannot be set for it"),
    ("A=b witness", REFUSED, "nor anything harmless"),
    ("witness;touch {marker}", REFUSED, "a semicolon is a letter of the word `witness;touch`"),
    ("witness&&touch {marker}", REFUSED, "and so are ampersands"),
    ("witness|tee {marker}", REFUSED, "and a bar"),
    ("witness>{marker}", REFUSED, "and a redirection"),
    (">{marker} witness", REFUSED, "also in front"),
    ("$(touch${IFS}{marker})", REFUSED, "a substitution is a word"),
    ("`touch {marker}`", REFUSED, "so is the old one"),
    ("$SHELL -c 'touch {marker}'", REFUSED, "a variable is a word"),
    ("${PATH:0:1}bin${PATH:0:1}sh", REFUSED, "a part of one too"),
    ("wit*", REFUSED, "nothing is expanded to file names"),
    ("witnes[s]", REFUSED, "no set of letters either"),
    ("{witness,evil}", REFUSED, "no braces"),
    ("~/witness", REFUSED, "no home directory"),
    ("(witness)", REFUSED, "no subshell"),
    ("! witness", REFUSED, "no negation"),
    (["'witness'"], REFUSED, "in a list quotes are letters"),
    (["\\witness"], REFUSED, "in a list a backslash is a letter"),
    ("exec witness", REFUSED, "no builtin: exec"),
    ("eval 'touch {marker}'", REFUSED, "no builtin: eval"),
    (". {folder}/bin/evil", REFUSED, "no builtin: ."),
    ("command witness", REFUSED, "no builtin: command"),
    ("time witness", REFUSED, "no keyword"),
    ("#witness", REFUSED, "no comment, so not an empty command either"),
    ("evil\nwitness", REFUSED, "the first word counts, on whatever line"),
]

# --- the language of shells, in the place of arguments: letters, nothing else --------------------

ARGUMENTS: list[Row] = [
    ("witness ; touch {marker}", [";", "touch", "{marker}"], "a word of one letter"),
    ("witness && touch {marker}", ["&&", "touch", "{marker}"], "words"),
    ("witness || touch {marker}", ["||", "touch", "{marker}"], "words"),
    ("witness | tee {marker}", ["|", "tee", "{marker}"], "words"),
    ("witness & touch {marker}", ["&", "touch", "{marker}"], "words"),
    ("witness > {marker}", [">", "{marker}"], "words"),
    ("witness 2>{marker}", ["2>{marker}"], "one word"),
    ("witness < /etc/passwd", ["<", "/etc/passwd"], "words"),
    ("witness <(touch {marker})", ["<(touch", "{marker})"], "words"),
    ("witness $(touch {marker})", ["$(touch", "{marker})"], "words"),
    (["witness", "$(touch {marker})"], ["$(touch {marker})"], "one word"),
    (["witness", "`touch {marker}`"], ["`touch {marker}`"], "one word"),
    ("witness $HOME ${IFS} $((1+1))", ["$HOME", "${IFS}", "$((1+1))"], "no variables"),
    ("witness * ? [a-z]* {a,b} ~", ["*", "?", "[a-z]*", "{a,b}", "~"], "no expansion"),
    ("witness # not a comment", ["#", "not", "a", "comment"], "no comments"),
    ("witness !! !$ ^a^b", ["!!", "!$", "^a^b"], "no history"),
    ("witness a\ntouch {marker}", ["a", "touch", "{marker}"], "a line break is a blank"),
    (["witness", "a\ntouch {marker}"], ["a\ntouch {marker}"], "in a list it is a letter"),
    (["witness", "a\r\nb"], ["a\r\nb"], "and so is a carriage return"),
    ("'wit'\"ness\" \\a", ["a"], "quotes and backslashes of a string only hold words together"),
    ("witness 'a b'  \"c\"'d'", ["a b", "cd"], "as in every shell"),
    (["witness", ""], [""], "an empty word stays"),
    (["witness", "-c", "touch {marker}"], ["-c", "touch {marker}"], "not for its interpreter"),
    (["witness", "--", "-s"], ["--", "-s"], "options are its own"),
    (["witness", "LD_PRELOAD=/tmp/evil.so"], ["LD_PRELOAD=/tmp/evil.so"], "no assignment"),
    (["witness", "%s%n%x"], ["%s%n%x"], "no format"),
    (["witness", "\x1b]0;x\x07\x1b[2J"], ["\x1b]0;x\x07\x1b[2J"], "no terminal reads it"),
    (["witness", "\N{RIGHT-TO-LEFT OVERRIDE}é\U0001f600"],
     ["\N{RIGHT-TO-LEFT OVERRIDE}é\U0001f600"], "UTF-8, as it was"),
    (["{folder}/bin/witness", "x"], ["x"], "the path at which the name was found may be said"),
    ({"cmd": ["witness", "x"], "kind": "evil"}, ["x"], "`kind` is Agentmux's and means nothing"),
]  # fmt: skip

# --- no payload at all ---------------------------------------------------------------------------

PAYLOADS: list[Row] = [
    (["witness\0", "x"], INVALID, "a program's name ends at a NUL for the kernel, not for us"),
    (["witness", "a\0{marker}"], INVALID, "and so does an argument"),
    (["witness", "\udcff"], INVALID, "half a surrogate smuggles a byte that is no UTF-8"),
    ("witness 'x", INVALID, "a quote that is not closed"),
    ("", INVALID, "nothing"),
    (["", "witness"], INVALID, "no program, which some would take for the directory"),
    ([["witness"], "x"], INVALID, "a list in the list"),
    ({"cmd": "witness", "env": {"LD_PRELOAD": "x"}}, INVALID, "variables make programs run others"),
    ({"cmd": "witness", "shell": True}, INVALID, "no member turns a shell on"),
    ({"cmd": "witness", "executable": "{folder}/bin/evil"}, INVALID, "or another program"),
    ({"cmd": "witness", "path": "{folder}/elsewhere"}, INVALID, "or another PATH"),
    ({"cmd": "witness", "user": "root"}, INVALID, "or another user"),
    ({"cmd": "witness", "stdin": "touch {marker}"}, INVALID, "or feeds an interpreter"),
    ({"cmd": "witness", "cwd": "{folder}/elsewhere"}, INVALID, "or leads out of the directory"),
    ({"cmd": "witness", "cwd": "../../../elsewhere"}, INVALID, "upwards"),
    ({"cmd": "witness", "cwd": "a/../../b"}, INVALID, "by a detour"),
    ({"cmd": "witness", "timeout": -1}, INVALID, "or does without a time limit"),
]  # fmt: skip

TRICKS = NAMES + RUNNERS + PROGRAMS + ARGUMENTS + PAYLOADS


class Stage:
    """The files of which the rows speak, and the executor."""

    def __init__(self, bench: Any) -> None:
        self.bench, self.folder = bench, bench.folder
        self.marker, self.started = bench.folder / "marker", bench.folder / "started"
        evil, elsewhere = f"touch {self.marker}", bench.folder / "elsewhere"
        note = f"echo >> {self.started}\nfor word; do printf '<%s>\\n' \"$word\"; done"
        witness = bench.program("witness", note)
        bench.program("evil", evil)
        bench.program("witness", evil, elsewhere)
        bench.program("copy", note, elsewhere)
        (elsewhere / "link").symlink_to(witness)
        (elsewhere / "hard").hardlink_to(witness)
        self.shell = bench.shell("witness")

    def fill(self, text: Any) -> Any:
        """Put the paths into a row."""
        if isinstance(text, str):
            return text.replace("{marker}", str(self.marker)).replace("{folder}", str(self.folder))
        if isinstance(text, dict):
            return {name: self.fill(value) for name, value in text.items()}
        return [self.fill(each) for each in text] if isinstance(text, list) else text


@pytest.fixture
def stage(bench):
    """The stage of one trick."""
    return Stage(bench)


def test_there_are_many():
    """The table has far more than sixty rows, each of them once."""
    assert len({repr(asked) for asked, _, _ in TRICKS}) == len(TRICKS) > 120


def name(row: Row) -> str:
    """Return the reason as the name of a row."""
    return row[2].replace(" ", "_")


@pytest.mark.parametrize(("asked", "expected", "why"), TRICKS, ids=map(name, TRICKS))
def test_trick(stage, asked, expected, why):
    """It is refused before anything starts, or what it says is passed on letter by letter."""
    payload = stage.fill(asked)
    payload = payload if isinstance(payload, dict) else {"cmd": payload}

    ended = stage.bench.run_payload(stage.shell, payload)

    assert not stage.marker.exists(), why
    if expected in (REFUSED, INVALID):
        assert type(ended.outcome) is (Block if expected == REFUSED else InvalidPayload), why
        assert not stage.started.exists()
        assert not stage.bench.workdir.exists()
        assert (ended.context.lines, ended.context.files) == ([], {})
    else:
        assert ended.outcome is None, ended.outcome
        assert ended.context.stdout == "".join(f"<{word}>\n" for word in stage.fill(expected))
        assert stage.started.read_text() == "\n"


# --- time passes between the start of the worker and the job -------------------------------------


def test_another_path_changes_nothing(stage, monkeypatch):
    """Names are looked up once: a directory that comes first on PATH later is not looked into."""
    monkeypatch.setenv("PATH", f"{stage.folder}/elsewhere")
    stage.bench.environ["PATH"] = f"{stage.folder}/elsewhere"

    ended = stage.bench.run(stage.shell, "witness")

    assert ended.outcome is None
    assert stage.started.exists()
    assert not stage.marker.exists()


def test_a_link_that_leads_elsewhere_later_changes_nothing(stage):
    """Links are followed once: what runs is what the allowed link led to at the start."""
    link = stage.folder / "bin" / "linked"
    link.symlink_to(stage.folder / "bin" / "witness")
    shell = stage.bench.shell("linked")
    link.unlink()
    link.symlink_to(stage.folder / "bin" / "evil")

    ended = stage.bench.run(shell, "linked")

    assert ended.outcome is None
    assert stage.started.exists()
    assert not stage.marker.exists()


def replaced(witness):
    """Put another file in its place."""
    (witness.parent / "evil").rename(witness)


def overwritten(witness):
    """Write other text of the same length into it, and set its time back."""
    import os

    found = witness.stat()
    text = (witness.parent / "evil").read_text()
    witness.write_text(text + "#" * (found.st_size - len(text)))
    os.utime(witness, ns=(found.st_atime_ns, found.st_mtime_ns))


def removed(witness):
    """Remove it."""
    witness.unlink()


def moved(witness):
    """Move its directory away and make another."""
    other = witness.parent.rename(witness.parent.with_name("old"))
    witness.parent.mkdir()
    (other / "evil").rename(witness)


@pytest.mark.parametrize("change", [replaced, overwritten, removed, moved])
def test_a_program_that_changed_is_refused(stage, change):
    """What has been replaced, overwritten, removed or moved since the start does not run."""
    change(stage.folder / "bin" / "witness")

    ended = stage.bench.run(stage.shell, "witness")

    assert type(ended.outcome) is Block
    assert "has changed since this worker started" in str(ended.outcome)
    assert not stage.marker.exists()
    assert not stage.bench.workdir.exists()


def test_a_program_that_changes_at_the_last_moment_is_refused(stage, monkeypatch):
    """Between the check of the job and the start the file is checked once more, before exec."""
    witness = stage.folder / "bin" / "witness"
    permit = stage.shell._allowlist.permit

    def permit_then_replace(argv):
        program = permit(argv)
        replaced(witness)
        return program

    monkeypatch.setattr(stage.shell._allowlist, "permit", permit_then_replace)

    ended = stage.bench.run(stage.shell, "witness")

    assert type(ended.outcome) is Block
    assert "has changed since this worker started" in str(ended.outcome)
    assert not stage.marker.exists()
    assert not stage.started.exists()
