"""DAG files: what is read, and what is refused with file, line and task."""

import json
import re

import jsonschema
import pytest
import yaml

from moonmind_queue import InvalidArgument
from moonmind_queue.agentmux import dag

SMOKE = """
- id: "smoke:noop-codex"
  name: "Smoke test noop (codex)"
  agent: "codex"
  deps: []
  payload:
    kind: "noop"
"""
TASK = {
    "id": "smoke:noop-codex",
    "name": "Smoke test noop (codex)",
    "agent": "codex",
    "payload": {"kind": "noop"},
}


@pytest.fixture
def read(tmp_path):
    """Read a DAG file with this text; gives its tasks as they are seeded."""

    def from_text(text):
        path = tmp_path / "dag.yaml"
        path.write_text(text)
        return dag.read(path)

    return from_text


@pytest.fixture
def faults(read, tmp_path):
    """What is said of a file with this text, a line for each fault, without the folder."""

    def of(text):
        with pytest.raises(InvalidArgument) as refused:
            read(text)
        return str(refused.value).replace(f"{tmp_path}/", "").splitlines()

    return of


@pytest.mark.parametrize(
    "text", [SMOKE, "tasks:" + SMOKE, "tasks:\n  " + SMOKE.replace("\n", "\n  ")]
)
def test_a_list_and_a_list_under_tasks_are_the_same(read, text):
    """The example of the specification, as it stands there and in both shapes."""
    assert read(text).seeds() == [TASK]


def test_what_is_not_said_has_its_usual_value(read):
    """Flow and block style, empty members, no payload: all of it is a task."""
    graph = read("- {id: a, agent: x, deps:, payload:}\n- id: b\n  agent: x\n  deps: [a]\n")

    assert graph.seeds() == [{"id": "a", "agent": "x"}, {"id": "b", "agent": "x", "deps": ["a"]}]
    assert graph.lines == [1, 2]


def test_a_payload_is_checked_by_the_executor_of_its_kind(read, faults):
    """With the same code as in a producer; a kind that is not installed here is left alone."""
    text = "- id: a\n  agent: x\n  payload:\n    kind: {}\n    seconds: -1\n"

    assert faults(text.format("noop")) == [
        "dag.yaml:4: task a: payload: noop: seconds: must be a number of at least 0, not -1"
    ]
    assert read(text.format("elsewhere")).seeds()[0]["payload"]["seconds"] == -1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["dag.yaml: needs a list of tasks, or one under tasks:"]),
        ("5", ["dag.yaml:1: needs a list of tasks, or one under tasks:"]),
        ("x: []", ["dag.yaml:1: needs one list of tasks under tasks:"]),
        ("\ntasks: {a: 1}", ["dag.yaml:2: needs a list of tasks, or one under tasks:"]),
        ("- 7", ["dag.yaml:1: task 7: is not a mapping with id, agent, deps and payload"]),
        ("- id: a", ["dag.yaml:1: task a: agent: is missing"]),
        ("- agent: x", ["dag.yaml:1: task 1: id: is missing"]),
        (
            "- id: 7\n  agent: x",
            ["dag.yaml:1: task 7: id: input should be a valid string, not 7; put it in quotes"],
        ),
        (
            "- id: a\n  agent: x\n  deps: b",
            ["dag.yaml:3: task a: deps: input should be a valid list, not 'b'"],
        ),
        (
            "- id: a\n  agent: x\n  deps: [b,\n    1]",
            ["dag.yaml:4: task a: deps.1: input should be a valid string, not 1; put it in quotes"],
        ),
        ("- id: a\n  agent: x\n  id: b", ["dag.yaml:3: task a: id: is there twice"]),
        (
            "- id: a\n  agent: x\n  payload: [1]",
            ["dag.yaml:3: task a: payload: input should be a valid dictionary, not list"],
        ),
        (
            "- {id: a, agent: x, payload: {kind: 7}}",
            ["dag.yaml:1: task a: payload.kind: is not a string"],
        ),
        (
            "- {id: a, agent: x, max_attempts: 0}",
            ["dag.yaml:1: task a: max_attempts: input should be greater than or equal to 1, not 0"],
        ),
    ],
)
def test_each_fault_is_told_with_its_line_and_task(faults, text, said):
    """And with the value and the way out."""
    assert faults(text) == said


def test_all_faults_are_told_at_once(faults):
    """Nobody mends a file fault by fault."""
    text = "- id: a\n  agnt: x\n- id: b\n  agent: x\n  deps: 1\n"

    assert faults(text) == [
        "dag.yaml:1: task a: agent: is missing",
        "dag.yaml:2: task a: agnt: unknown; there are id, agent, name, deps, payload, priority,"
        " max_attempts, timeout, capabilities",
        "dag.yaml:5: task b: deps: input should be a valid list, not 1",
    ]


@pytest.mark.parametrize("text", ["- [", "- !!python/object:os.system {}", "a: &a [*a]", "\x00"])
def test_what_is_no_yaml_is_refused(faults, text):
    """Neither objects are made from it nor does it loop."""
    assert re.match(r"dag\.yaml(:1)?: ", faults(text)[0])


def test_a_file_of_aliases_does_not_grow_in_memory(faults):
    """Ten lines that would stand for a billion values."""
    lines = ["- id: a", "  agent: x", "  payload:", "    l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 9):
        lines.append(f"    l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]")

    assert faults("\n".join(lines)) == [
        "dag.yaml:1: task a: has more than 1,000,000 values, aliases counted"
    ]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """With what the system said."""
    with pytest.raises(InvalidArgument, match=r"nowhere\.yaml: cannot be read: No such file"):
        dag.read(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("task 2 (b): depends on unknown task z", 3),
        ("jobs depend on each other in a circle: b -> a -> b", 3),
        ("something else", None),
    ],
)
def test_what_the_database_says_of_a_task_gets_its_line(read, said, line):
    """Ids and circles are checked there; the file knows where they stand."""
    graph = read("- id: a\n  agent: x\n- id: b\n  agent: x\n")

    told = str(graph.explain(InvalidArgument(said)))

    assert told.endswith(f"dag.yaml:{line}: {said}" if line else f"dag.yaml: {said}")


def test_the_schema_for_editors_takes_and_refuses_what_we_do(read):
    """Both shapes; an unknown member is a fault there too."""
    schema = json.loads(json.dumps(dag.schema()))
    for text in (SMOKE, "tasks:" + SMOKE):
        jsonschema.validate(yaml.safe_load(text), schema)
    for bad in ([{"id": "a"}], [{"id": "a", "agent": "x", "agnt": 1}], {"tasks": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)
