"""Templates, replays, comparisons and allowances from a shell."""

import json
from datetime import timedelta

import pytest
from psycopg.sql import SQL, Identifier

import moonmind_queue

CODEX = {"repository": "acme/site", "instruction": "Do it."}
TEMPLATE = """
parameters:
  repository:
  issue: {type: integer, help: its number}
  branch: main
  draft: {type: boolean, default: false}
  cost: {type: number, default: 1}
job:
  kind: codex_exec
  name: fix ${issue} of ${repository}
  priority: ${issue}
  payload:
    repository: ${repository}
    instruction: "Fix ${issue} (${draft}, ${cost}); leave $${HOME} and $PATH alone"
    ref: ${branch}
  on_failure: [{kind: noop, name: "tell of ${issue}"}]
"""
PATCH = """diff --git a/src/a.py b/src/a.py
index 1..2 100644
--- a/src/a.py
+++ b/src/a.py
@@ -1,2 +1,3 @@
 same
-old
+new
++++ three pluses
diff --git a/b.txt b/b.txt
new file mode 100644
--- /dev/null
+++ b/b.txt
@@ -0,0 +1 @@
+one
"""


@pytest.fixture
def queue(fresh):
    """A client whose work is committed at once."""
    with moonmind_queue.connect(fresh) as queue:
        yield queue


@pytest.fixture
def written(tmp_path):
    """Write a template, by default a whole one, and return its path."""

    def write(text=TEMPLATE):
        path = tmp_path / "fix.yaml"
        path.write_text(text)
        return str(path)

    return write


# --- templates -----------------------------------------------------------------------------


def test_a_template_becomes_a_job_with_its_parameters_in_place(run, written, queue):
    """Values keep their type where they stand alone; $${ is text; a default serves."""
    done = run(
        *("enqueue", "--template", written()),
        *("--set", "repository=acme/site", "--set", "issue=7", "--set", "cost=2.5"),
    )

    assert done.stdout == "job 1 is queued\n"
    job = queue.get(1)
    assert (job.kind, job.name, job.priority) == ("codex_exec", "fix 7 of acme/site", 7)
    assert job.payload == {
        "repository": "acme/site",
        "instruction": "Fix 7 (false, 2.5); leave ${HOME} and $PATH alone",
        "ref": "main",
    }
    assert queue.select("select event, job from moonmind_queue.job_follow_up") == [
        {"event": "failure", "job": {"kind": "noop", "name": "tell of 7", "payload": {}}}
    ]


def test_what_the_command_line_says_goes_before_the_template(run, written, queue):
    """Options that are given, and members of the payload; not the defaults of options."""
    run(
        *("enqueue", "--template", written(), "--set", "repository=acme/site", "--set", "issue=7"),
        *("--priority", "1", "--ref", "topic", "--key", "x", "--capability", "gpu"),
    )

    job = queue.get(1)
    assert (job.priority, job.payload["ref"], job.key, job.capabilities) == (
        *(1, "topic", "x", ["gpu"]),
    )
    assert job.name == "fix 7 of acme/site"


def test_a_value_cannot_bring_a_parameter(run, written):
    """What is put in is not looked at again."""
    done = run(
        *("enqueue", "--dry-run", "--template", written()),
        *("--set", "repository=acme/site", "--set", "issue=7", "--set", "branch=x${issue}"),
    )

    assert json.loads(done.stdout)["payload"]["ref"] == "x${issue}"
    done = run(
        *("enqueue", "noop", "--dry-run", "--template"),
        written('{"parameters": {"a": null}, "job": {"name": "${a}"}}'),
        *("--set", "a=${b} $${a}"),
    )
    assert json.loads(done.stdout)["name"] == "${b} $${a}"


def test_a_dry_run_prints_the_job_and_adds_none(run, written, queue):
    """As JSON, checked: also without a template."""
    done = run(
        *("enqueue", "--dry-run", "--template", written()),
        *("--set", "repository=acme/site", "--set", "issue=7"),
    )
    plain = run(
        "enqueue", "noop", "--timeout", "2h", "--dry-run", "--on-success", '{"kind":"noop"}'
    )

    assert json.loads(done.stdout)["name"] == "fix 7 of acme/site"
    assert json.loads(plain.stdout)["timeout"] == 7200.0
    assert json.loads(plain.stdout)["on_success"] == [{"kind": "noop", "payload": {}}]
    assert run("enqueue", "codex_exec", "--dry-run").returncode == 2
    assert queue.count_jobs([]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "issue=7"], "fix.yaml needs --set repository"),
        (["--set", "repository=a/b"], "needs --set issue (its number)"),
        (["--set", "isue=7"], "--set isue is no parameter; there are: repository, issue, branch"),
        (["--set", "issue"], "--set 'issue' is not name=value"),
        (["--set", "issue=7.0"], "--set issue: '7.0' is not an integer"),
        (["--set", "draft=yes"], "--set draft: 'yes' is not true or false"),
        (["--set", "cost=nan"], "--set cost: 'nan' is not a number"),
    ],
)
def test_parameters_are_refused_by_name(run, written, queue, words, says):
    """Missing, unknown, or of another type."""
    done = run("enqueue", "--template", written(), *words)

    assert (done.returncode, queue.count_jobs([])) == (2, 0)
    assert says in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("job: {kind: noop, name: '${a}'}", "${a} is no parameter; there are: none; for the text"),
        ("kind: noop", "needs a mapping with job:"),
        ("job: {}", "its job has no kind"),
        ("job: {kind: noop}\nparams: {}", "unknown params; there are job, parameters"),
        ("job: {kind: noop}\nparameters: [a]", "parameters is not a mapping"),
        ("job: {kind: noop}\nparameters: {a-b: 1}", "letters, digits and underscores"),
        ("job: {kind: noop}\nparameters: {a: {typ: 1}}", "unknown typ; there are type, default"),
        ("job: {kind: noop}\nparameters: {a: {type: int}}", "type is one of text, integer"),
        ("job: {kind: noop}\nparameters: {a: {type: integer, default: x}}", "is not an integer"),
        ("job: {kind: noop}\nparameters: {a: [1]}", "a default is text, an integer"),
        ("job: {kind: noop, payload: 1}", "payload of its job is not an object"),
        ("job: &a {kind: noop, payload: {x: *a}}", "a template has no aliases"),
        ("job: {kind: misspelt}", "unknown kind 'misspelt'"),
        ("job: {kind: noop, on_success: [{kind: misspelt}]}", "unknown kind 'misspelt'"),
        ("job: {kind: noop, colour: red}", "unknown name colour"),
        ("job: [", "is no YAML"),
        ("[" * 2000, "is no YAML"),
        (f"job: {{kind: noop, payload: {'{a: ' * 200}1{'}' * 200}}}", "more than 100 levels"),
    ],
)
def test_a_template_that_is_wrong_says_why(run, written, queue, text, says):
    """In words, and nothing is added."""
    done = run("enqueue", "--template", written(text))

    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert queue.count_jobs([]) == 0


def test_a_parameter_without_a_template_is_refused(run):
    """--set says what it belongs to."""
    done = run("enqueue", "noop", "--set", "a=1")

    assert (done.returncode, "a parameter of a --template" in done.stderr) == (2, True)


# --- follow-ups ----------------------------------------------------------------------------


def test_show_tells_where_a_job_came_from_and_what_comes_of_it(run, queue):
    """Both ways, before and after the end."""
    run(
        *("enqueue", "noop", "--on-success", '{"kind": "noop", "name": "next"}'),
        *("--on-failure", '{"kind": "noop"}'),
    )
    assert "on success  noop next (not yet)" in run("show", "1").stdout
    queue.complete(queue.claim("w")[0])
    again = json.loads(run("replay", "1", "--json").stdout)["id"]
    [after] = queue.select("select job_id from moonmind_queue.job_origin where how = 'success'")

    told = run("show", "1").stdout
    assert f"on success  noop next is job {after['job_id']} queued" in told
    assert "on failure  noop (not yet)" in told
    assert f"replays  {again}" in told
    assert "origin  on success of job 1" in run("show", str(after["job_id"])).stdout
    assert "origin  replay of job 1" in run("show", str(again)).stdout


@pytest.mark.parametrize("text", ["{", "[]", "1"])
def test_a_follow_up_that_is_no_job_is_refused(run, text):
    """By the name of its option."""
    done = run("enqueue", "noop", "--on-success", text)

    assert (done.returncode, "--on-success is not a job" in done.stderr) == (2, True)


# --- replay --------------------------------------------------------------------------------


def test_a_replay_changes_what_is_given_and_never_publishes_unasked(run, queue):
    """Model, effort, ref and agent; publish only with --publish."""
    payload = {**CODEX, "codex": {"model": "a", "effort": "low"}, "publish": {"mode": "branch"}}
    queue.enqueue("codex_exec", payload, name="n")

    done = run("replay", "1", "--model", "b", "--ref", "topic", "--agent", "other")
    run("replay", "1", "--effort", "HIGH", "--publish")
    plain = run("replay", "1", "--json")

    assert done.stdout == "job 2 is a replay of job 1\n"
    assert json.loads(plain.stdout) == {"id": 4, "replay_of": 1}
    first, second, third = (queue.get(job) for job in (2, 3, 4))
    assert first.payload == {**CODEX, "ref": "topic", "codex": {"model": "b", "effort": "low"}}
    assert (first.agent, first.name) == ("other", "n")
    assert second.payload["codex"] == {"model": "a", "effort": "high"}
    assert second.payload["publish"] == {"mode": "branch"}
    assert third.payload == {**CODEX, "codex": {"model": "a", "effort": "low"}}


def test_what_only_codex_knows_is_refused_for_other_kinds(run, queue):
    """A model of a shell job means nothing; without one it is replayed."""
    queue.enqueue("noop", {"seconds": 1})

    done = run("replay", "1", "--model", "b")
    run("replay", "1")

    assert (done.returncode, "job 1 is noop" in done.stderr) == (2, True)
    assert queue.get(2).payload == {"seconds": 1}
    assert run("replay", "99").returncode == 1


# --- compare -------------------------------------------------------------------------------


@pytest.fixture
def ended(queue, fresh, clock_of):
    """Run a codex_exec job as a worker reports it: half an hour's rest and a minute's work."""
    clock = clock_of(fresh)
    clock.freeze()

    def make(patch, *, tokens, model, status=0):
        queue.enqueue("codex_exec", {**CODEX, "codex": {"effort": "low"}})
        clock.advance(timedelta(minutes=30))
        [job] = queue.claim("w", start=True)
        queue.append_event(job, "progress", "command: ls", data={"exit_code": 0})
        queue.append_event(job, "progress", "command: pytest -q", data={"exit_code": status})
        queue.append_event(job, "progress", "command: git status", data={"exit_code": 0})
        queue.put_artifact(job, "patches/changes.patch", patch.encode(), "text/x-diff")
        clock.advance(timedelta(minutes=1))
        facts = {"files": 2, "insertions": 3, "deletions": 1, "bytes": len(patch)}
        queue.complete(
            job,
            {
                "model": model,
                "usage": {"input_tokens": tokens, "output_tokens": 5},
                "patch": facts,
                "commands": {"ran": 3, "succeeded": 2},
                "exit_code": 0,
            },
        )
        return job.id

    return make


def test_compare_shows_two_jobs_side_by_side(run, ended):
    """Model, effort, time, tests, tokens and each file of the patches."""
    ended(PATCH, tokens=12345, model="small")
    ended(PATCH.replace("new", "newer").replace("b.txt", "c.txt"), tokens=1, model="big", status=1)

    lines = [" ".join(line.split()) for line in run("compare", "1", "2").stdout.splitlines()]

    for line in (
        *("job 1 job 2", "state succeeded succeeded", "model small big", "effort low low"),
        *("queued 30 min 0 s 30 min 0 s", "running 1 min 0 s 1 min 0 s", "attempts 1 1"),
        *("commands 2 of 3 succeeded 2 of 3 succeeded", "input tokens 12,345 1"),
        "tests passed: pytest -q exit status 1: pytest -q",
        "the patches are different",
        *("src/a.py +2 -1 +2 -1", "b.txt +1 -0", "c.txt +1 -0"),
    ):
        assert line in lines, lines
    assert not any(line.startswith(("error", "cost", "published")) for line in lines)


def test_compare_gives_programs_all_of_it(run, ended):
    """The same facts as JSON, seconds as numbers, and whether the patches are equal."""
    ended(PATCH, tokens=10, model="small")
    ended(PATCH, tokens=20, model="small")

    told = json.loads(run("compare", "1", "2", "--json").stdout)

    assert told["same_patch"] is True
    assert (told["a"]["queued"], told["b"]["running"]) == (1800.0, 60.0)
    assert (told["a"]["input_tokens"], told["b"]["input_tokens"]) == (10, 20)
    assert told["a"]["tests"] == {"command": "pytest -q", "exit_code": 0}
    assert told["files"] == [
        {
            "file": name,
            "a": {"insertions": added, "deletions": removed},
            "b": {"insertions": added, "deletions": removed},
        }
        for name, added, removed in (("src/a.py", 2, 1), ("b.txt", 1, 0))
    ]


def test_jobs_that_have_not_begun_can_be_compared(run, queue):
    """What is not known is left out."""
    queue.enqueue("noop")
    queue.enqueue("noop", agent="other")

    told = run("compare", "1", "2")

    assert told.returncode == 0
    assert "other" in told.stdout
    assert "patch" not in told.stdout
    assert json.loads(run("compare", "1", "2", "--json").stdout)["same_patch"] is None
    assert run("compare", "1", "9").returncode == 1


# --- allowances ----------------------------------------------------------------------------


def test_role_allow_binds_what_a_login_may_enqueue(run, queue, fresh):
    """The list of roles says it with what is used; --everything lifts it."""
    name = f"{queue.connection.info.dbname}_agents"
    role = Identifier(name)
    queue.connection.execute(SQL("create role {} login").format(role))
    try:
        queue.connection.execute(SQL("grant moonmind_producer to {}").format(role))
        done = run("role", "allow", name, "--kinds", "noop", "--max-open", "2", "--max-depth", "3")
        assert done.stdout == (
            f"role {name} may enqueue kinds noop; 2 open at once; 3 generations\n"
        )
        with queue.connection.transaction():
            queue.connection.execute(SQL("set local session authorization {}").format(role))
            queue.enqueue("noop")
        assert "kinds noop; 1 of 2 open at once; 3 generations" in run("role", "list").stdout
        assert run("role", "allow", name).returncode == 2
        assert run("role", "allow", name, "--everything", "--max-open", "1").returncode == 2
        assert run("role", "allow", name, "--everything").stdout.endswith("enqueue everything\n")
        assert "open at once" not in run("role", "list").stdout
    finally:
        queue.connection.execute(SQL("drop role {}").format(role))
