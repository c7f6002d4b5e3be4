"""Drawings of a DAG: each task once, in its layer and its state, each edge once."""

import xml.etree.ElementTree as ET

import pytest

from moonmind_queue.agentmux.graph import Node, layers, mermaid, svg, text

NODES = [
    Node("spec:write", "claude", "DONE", ()),
    Node("impl:api", "codex", "RUNNING", ("spec:write",)),
    Node("impl:<ui>", "codex", "READY", ("spec:write",)),
    Node("ship", "claude", "BLOCKED", ("impl:api", "impl:<ui>")),
]


def test_a_task_is_in_the_layer_after_the_last_that_it_needs():
    """Whatever the order is in which they come."""
    for nodes in (NODES, NODES[::-1]):
        ids = [sorted(node.id for node in layer) for layer in layers(nodes)]
        assert ids == [["spec:write"], ["impl:<ui>", "impl:api"], ["ship"]]


def test_a_chain_of_thousands_is_no_problem():
    """No recursion."""
    chain = [Node(str(n), "x", "READY", (str(n - 1),) if n else ()) for n in range(5000)]

    assert len(layers(chain[::-1])) == 5000


def test_text_tells_state_agent_and_needs():
    """One line for each task, an empty one between layers."""
    assert text(NODES).splitlines() == [
        "● spec:write  DONE       claude",
        "",
        "◑ impl:api    RUNNING    codex  ← spec:write",
        "○ impl:<ui>   READY      codex  ← spec:write",
        "",
        "■ ship        BLOCKED    claude  ← impl:api, impl:<ui>",
    ]


def test_mermaid_has_every_task_and_every_edge():
    """Ids are escaped; the nodes have names that need no escaping."""
    lines = mermaid(NODES).splitlines()

    assert lines[0] == "flowchart LR"
    assert '  t2["impl:&lt;ui&gt;<br/>READY · codex"]:::READY' in lines
    edges = ["  t0 --> t1", "  t0 --> t2", "  t1 --> t3", "  t2 --> t3"]
    assert [line for line in lines if "-->" in line] == edges


def test_svg_is_well_formed_and_nothing_overlaps():
    """A box for each task, a path for each edge; all within the picture."""
    root = ET.fromstring(svg(NODES))  # noqa: S314 - our own
    space = "{http://www.w3.org/2000/svg}"
    paper, *boxes = root.findall(f"{space}rect")
    names = [t.text for t in root.findall(f"{space}text") if t.get("font-weight")]
    places = [tuple(float(box.get(k)) for k in ("x", "y", "width", "height")) for box in boxes]

    assert names == [node.id for node in NODES]
    assert len(root.findall(f"{space}path")) == 4
    for number, (x, y, wide, tall) in enumerate(places):
        assert x + wide <= float(paper.get("width"))
        assert y + tall <= float(paper.get("height"))
        for ox, oy, owide, otall in places[:number]:
            assert x >= ox + owide or ox >= x + wide or y >= oy + otall or oy >= y + tall


@pytest.mark.parametrize("draw", [text, mermaid, svg])
def test_a_need_that_is_not_drawn_costs_nothing(draw):
    """A task may need a job that is no task of the DAG."""
    assert "a" in draw([Node("a", "x", "READY", ("elsewhere",))])
