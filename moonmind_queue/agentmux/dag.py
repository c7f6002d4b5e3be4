"""DAG files: tasks in YAML, as a list or under the key ``tasks``.

What is wrong is told with file, line and task. The shape is checked here, because here the lines
are known; ids, dependencies and circles are the database's to check, and :meth:`Dag.explain` puts
file and line before what it says.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from moonmind_queue import executors
from moonmind_queue.errors import InvalidArgument, InvalidPayload

LARGEST = 16 * 1024 * 1024  # bytes of a file
MOST_NODES = 1_000_000  # once aliases are followed: a file of ten lines may mean gigabytes


def _or(empty: Any) -> BeforeValidator:
    """Read a member that is there and says nothing, such as ``deps:``, as an empty one."""
    return BeforeValidator(lambda value: empty if value is None else value)


class TaskSpec(BaseModel):
    """One task of a DAG file."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Task")

    id: str = Field(min_length=1, max_length=500, description="Unique, such as spec:write.")
    agent: str = Field(min_length=1, max_length=200, description="Who is to do it.")
    name: str | None = Field(None, max_length=500, description="For people to read.")
    deps: Annotated[list[str], _or([])] = Field([], description="Ids of tasks that come before.")
    payload: Annotated[dict[str, Any], _or({})] = Field(
        {}, description="What is to be done; kind names the executor, noop without one."
    )
    priority: int = Field(0, description="Higher runs first.")
    max_attempts: int = Field(3, ge=1, description="After so many failed attempts it has failed.")
    timeout: float | None = Field(None, gt=0, description="Seconds that one attempt may take.")
    capabilities: Annotated[list[str], _or([])] = Field(
        [], description="What a worker must offer to do it."
    )


@dataclass(frozen=True)
class Dag:
    """The tasks of a file, with the line on which each begins."""

    source: str
    tasks: list[TaskSpec]
    lines: list[int]

    def seeds(self) -> list[dict[str, Any]]:
        """Return the tasks as ``Queue.seed_dag`` takes them."""
        return [task.model_dump(exclude_defaults=True) for task in self.tasks]

    def explain(self, error: InvalidArgument) -> InvalidArgument:
        """Return what the database said of the tasks with file and line in front."""
        text = str(error)
        line = 0
        if place := re.match(r"task (\d+)", text):
            line = self.lines[int(place[1]) - 1]
        elif circle := re.search(r"circle: (.+?) -> ", text, re.DOTALL):
            line = next(
                (line for task, line in zip(self.tasks, self.lines, strict=True)
                 if task.id == circle[1]), 0
            )  # fmt: skip
        return InvalidArgument(
            f"{self.source}:{line}: {text}" if line else f"{self.source}: {text}"
        )


def read(path: Path) -> Dag:
    """Read a DAG file; raises ``InvalidArgument`` with a line for everything that is wrong."""
    source = str(path).replace("\\", "/")
    try:
        if path.stat().st_size > LARGEST:
            raise InvalidArgument(f"{source}: is larger than {LARGEST // 2**20} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{source}: cannot be read: {error.strerror}") from None
    return parse(content, source)


def parse(content: bytes, source: str) -> Dag:
    """Read what is in a DAG file; ``source`` is how errors name it. As :func:`read`."""
    try:
        root = yaml.compose(content.decode(), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{source}: is no YAML: {_short(error)}") from None
    nodes = _task_nodes(root, source)
    faults: list[str] = []
    tasks = []
    for number, node in enumerate(nodes, 1):
        try:
            tasks.append(_task(node))
        except _Faulty as faulty:
            faults += [f"{source}:{line}: task {_called(node, number)}: {what}"
                       for line, what in faulty.found]  # fmt: skip
    if faults:
        raise InvalidArgument("\n".join(faults))
    return Dag(source, tasks, [_line(node) for node in nodes])


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a DAG file, for editors."""
    task = TaskSpec.model_json_schema()
    tasks = {"type": "array", "items": {"$ref": "#/$defs/Task"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A DAG of Agentmux tasks",
        "anyOf": [
            tasks,
            {"type": "object", "properties": {"tasks": tasks}, "required": ["tasks"]},
        ],
        "$defs": {"Task": task},
    }


class _Faulty(Exception):
    """A task that cannot be read; ``found`` has a line and words for each fault."""

    def __init__(self, found: list[tuple[int, str]]) -> None:
        super().__init__()
        self.found = found


def _task_nodes(root: yaml.Node | None, source: str) -> list[yaml.Node]:
    if isinstance(root, yaml.MappingNode):
        listed = [value for key, value in root.value if key.value == "tasks"]
        if len(listed) != 1:
            raise InvalidArgument(f"{source}:{_line(root)}: needs one list of tasks under tasks:")
        root = listed[0]
    if not isinstance(root, yaml.SequenceNode):
        where = f"{source}:{_line(root)}" if root else source
        raise InvalidArgument(f"{where}: needs a list of tasks, or one under tasks:")
    return list(root.value)


def _task(node: yaml.Node) -> TaskSpec:
    if not isinstance(node, yaml.MappingNode):
        raise _Faulty([(_line(node), "is not a mapping with id, agent, deps and payload")])
    if sum(1 for _ in _walk(node)) > MOST_NODES:
        raise _Faulty([(_line(node), f"has more than {MOST_NODES:,} values, aliases counted")])
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen:
            raise _Faulty([(_line(key), f"{key.value}: is there twice")])
        seen.add(key.value)
    try:
        task = TaskSpec.model_validate(_plain(node))
    except yaml.YAMLError as error:
        raise _Faulty([(_line(node), _short(error))]) from None
    except ValidationError as error:
        raise _Faulty([
            (_line(_found(node, each["loc"])), f"{'.'.join(map(str, each['loc']))}: {_said(each)}")
            for each in error.errors()
        ]) from None  # fmt: skip
    return task.model_copy(update={"payload": _checked(node, task)})


def _checked(node: yaml.Node, task: TaskSpec) -> dict[str, Any]:
    """Return the payload as the executor of its kind wants it stored, where that is installed."""
    kind = task.payload.get("kind", "noop")
    rest = {name: value for name, value in task.payload.items() if name != "kind"}
    if not isinstance(kind, str):
        raise _Faulty([(_line(_found(node, ("payload", "kind"))), "payload.kind: is not a string")])
    try:
        rest = dict(executors.checked(kind, rest))
    except InvalidPayload as error:
        raise _Faulty([(_line(_found(node, ("payload",))), f"payload: {error}")]) from None
    return {"kind": kind, **rest} if "kind" in task.payload else rest


def _plain(node: yaml.MappingNode) -> Any:
    """Return what a node stands for, as JSON has it."""
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _walk(node: yaml.Node) -> Iterator[yaml.Node]:
    """Yield a node and all below it, as often as aliases name it, until there are too many."""
    waiting, met = [node], 0
    while waiting and met <= MOST_NODES:
        met += 1
        each = waiting.pop()
        yield each
        if isinstance(each, yaml.SequenceNode):
            waiting += each.value
        elif isinstance(each, yaml.MappingNode):
            waiting += [part for pair in each.value for part in pair]


def _found(node: yaml.Node, path: tuple[int | str, ...]) -> yaml.Node:
    """Return the node at a path, or the last on the way to it that there is."""
    for step in path:
        if isinstance(node, yaml.MappingNode):
            below = [value for key, value in node.value if key.value == step]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            below = node.value[step : step + 1]
        else:
            below = []
        if not below:
            break
        node = below[0]
    return node


def _called(node: yaml.Node, number: int) -> str:
    """Return how a task is named in an error: by its id, where it has one."""
    name = _found(node, ("id",))
    return name.value if isinstance(name, yaml.ScalarNode) and name.value else str(number)


def _said(fault: Any) -> str:
    """Return what is wrong with a member, with its value where that is short."""
    words = fault["msg"][:1].lower() + fault["msg"][1:]
    value = fault["input"]
    if fault["type"] == "extra_forbidden":
        return f"unknown; there are {', '.join(TaskSpec.model_fields)}"
    if fault["type"] == "missing":
        return "is missing"
    quote = "; put it in quotes" if fault["type"] == "string_type" else ""
    short = repr(value) if not isinstance(value, dict | list) else type(value).__name__
    return f"{words}, not {short[:60]}{quote}"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
