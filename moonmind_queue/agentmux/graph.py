"""Draws a DAG with the states of its tasks: as text, for Mermaid, as SVG."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = {
    "READY": "#e8e8e8",
    "CLAIMED": "#fff3bf",
    "RUNNING": "#ffd43b",
    "BLOCKED": "#e5b8f4",
    "DONE": "#b2f2bb",
    "FAILED": "#ffa8a8",
    "CANCELLED": "#dee2e6",
}
MARKS = {
    "READY": "○",
    "CLAIMED": "◔",
    "RUNNING": "◑",
    "BLOCKED": "■",
    "DONE": "●",
    "FAILED": "✗",
    "CANCELLED": "–",
}
BOX, TALL = 8.0, 38.0  # pixels: of a character, and of a box
APART, BETWEEN, EDGE = 70.0, 16.0, 16.0  # between layers, between boxes, around all


@dataclass(frozen=True)
class Node:
    """One task as it is drawn."""

    id: str
    agent: str
    state: str
    deps: tuple[str, ...]


def layers(nodes: Sequence[Node]) -> list[list[Node]]:
    """Return the tasks by how long the longest way to them is, in the order they were given."""
    known = {node.id: node for node in nodes}
    depth: dict[str, int] = {}
    for first in nodes:
        way = [first.id]
        while way:  # not recursive: a chain may be longer than Python's stack
            node = known[way[-1]]
            missing = [each for each in node.deps if each in known and each not in depth]
            if missing:
                way += missing
            else:
                depth[way.pop()] = max((depth[d] + 1 for d in node.deps if d in known), default=0)
    grouped: defaultdict[int, list[Node]] = defaultdict(list)
    for node in nodes:
        grouped[depth[node.id]].append(node)
    return [grouped[level] for level in sorted(grouped)]


def text(nodes: Sequence[Node]) -> str:
    """Return the graph layer by layer, each task on a line with what it needs."""
    wide = max((len(node.id) for node in nodes), default=0)
    lines = []
    for number, layer in enumerate(layers(nodes)):
        lines += [""] * bool(number)
        for node in layer:
            needs = f"  ← {', '.join(node.deps)}" if node.deps else ""
            line = f"{MARKS[node.state]} {node.id:<{wide}}  {node.state:<9}  {node.agent}{needs}"
            lines.append(line)
    return "\n".join(lines)


def mermaid(nodes: Sequence[Node]) -> str:
    """Return the graph as a Mermaid flowchart, which many pages draw."""
    names = {node.id: f"t{number}" for number, node in enumerate(nodes)}
    lines = ["flowchart LR"]
    lines += [
        f'  {names[node.id]}["{_mermaid(node.id)}<br/>{node.state} · {_mermaid(node.agent)}"]'
        f":::{node.state}"
        for node in nodes
    ]
    lines += [f"  {names[need]} --> {names[node.id]}" for need, node in _edges(nodes, names)]
    lines += [
        f"  classDef {state} fill:{COLOURS[state]},stroke:#555,color:#000"
        for state in sorted({node.state for node in nodes})
    ]
    return "\n".join(lines)


def svg(nodes: Sequence[Node]) -> str:
    """Return the graph as SVG: layers from left to right, each task near what it needs."""
    places: dict[str, tuple[float, float, float]] = {}  # left, top, width
    left = EDGE
    for layer in layers(nodes):
        wide = max(_width(node) for node in layer)
        # Beside the middle of what it needs: with that, few edges cross.
        ordered = sorted(
            layer, key=lambda node: _middle(places[d][1] for d in node.deps if d in places)
        )
        for row, node in enumerate(ordered):
            places[node.id] = (left, EDGE + row * (TALL + BETWEEN), wide)
        left += wide + APART
    right = left - APART + EDGE
    bottom = max((top for _, top, _ in places.values()), default=0) + TALL + EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right:.0f} {bottom:.0f}"'
        f' width="{right:.0f}" height="{bottom:.0f}" font-family="sans-serif" font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8"'
        ' markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="#666"/></marker></defs>',
        f'<rect width="{right:.0f}" height="{bottom:.0f}" fill="white"/>',
    ]
    parts += [_curve(places[need], places[node.id]) for need, node in _edges(nodes, places)]
    parts += [_box(node, places[node.id]) for node in nodes]
    return "\n".join([*parts, "</svg>"])


def _edges(nodes: Sequence[Node], known: Mapping[str, object]) -> list[tuple[str, Node]]:
    return [(need, node) for node in nodes for need in node.deps if need in known]


def _middle(tops: Iterable[float]) -> float:
    values = list(tops)
    return sum(values) / len(values) if values else 0.0


def _width(node: Node) -> float:
    return BOX * max(len(node.id), len(node.agent) + len(node.state) + 3) + 20


def _box(node: Node, place: tuple[float, float, float]) -> str:
    left, top, wide = place
    middle = left + wide / 2
    return (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{wide:.0f}" height="{TALL:.0f}" rx="6"'
        f' fill="{COLOURS[node.state]}" stroke="#555"/>'
        f'<text x="{middle:.0f}" y="{top + 16:.0f}" text-anchor="middle" font-weight="bold">'
        f"{escape(node.id)}</text>"
        f'<text x="{middle:.0f}" y="{top + 31:.0f}" text-anchor="middle" font-size="11">'
        f"{node.state} · {escape(node.agent)}</text>"
    )


def _curve(start: tuple[float, float, float], end: tuple[float, float, float]) -> str:
    x1, y1 = start[0] + start[2], start[1] + TALL / 2
    x2, y2 = end[0], end[1] + TALL / 2
    bend = (x2 - x1) / 2
    return (
        f'<path d="M{x1:.0f} {y1:.0f}C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f}'
        f' {x2:.0f} {y2:.0f}" fill="none" stroke="#666" marker-end="url(#tip)"/>'
    )


def _mermaid(words: str) -> str:
    """Return words that Mermaid takes as they are."""
    return escape(words).replace("&quot;", "#quot;").replace("&#x27;", "'").replace("\n", " ")
