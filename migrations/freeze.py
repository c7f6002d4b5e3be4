"""Start a revision: freeze what changed in sql/ beside a short Alembic script.

    python migrations/freeze.py "lease grace"

writes versions/0002_lease_grace.py and versions/0002_lease_grace.sql. The latter holds the full
text of every file of sql/ that differs from its newest frozen copy. Changes of tables, moves of
data and drops of old signatures are written by hand above the frozen blocks. Until a revision is
released, run it again after an edit: it rewrites the blocks and keeps what was written by hand.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSIONS = ROOT / "migrations" / "versions"
BLOCK = re.compile(r"^-- >>> (sql/\S+)\n(.*?)^-- <<<\n", re.M | re.S)
TABLES = "sql/schema.sql"  # frozen whole only in the first revision; later by hand, as ALTER

SCRIPT = '''"""{title}."""

from moonmind_queue.migrate import run_frozen_sql

revision = "{number}"
down_revision = {previous}


def upgrade() -> None:
    run_frozen_sql(__file__)
'''


def current() -> dict[str, str]:
    """Return the text of every file in sql/ in the order in which they can be run."""
    place = {"schema": 0, "views": 2, "grants": 3}
    files = sorted((ROOT / "sql").glob("*.sql"), key=lambda p: (place.get(p.stem, 1), p.stem))
    return {f"sql/{path.name}": path.read_text(encoding="utf-8") for path in files}


def frozen(before: str = "9999") -> dict[str, str]:
    """Return the newest frozen text of every file, optionally before a revision."""
    newest: dict[str, str] = {}
    for path in sorted(VERSIONS.glob("*.sql")):
        if path.name[:4] < before:
            newest.update(BLOCK.findall(path.read_text(encoding="utf-8")))
    return newest


def main(title: str) -> None:
    """Write, or rewrite, the two files of one revision."""
    slug = re.sub(r"\W+", "_", title.lower()).strip("_")
    if not slug:
        sys.exit('freeze needs a title, for example: make freeze title="lease grace"')
    numbers = sorted(path.name[:4] for path in VERSIONS.glob("*.py"))
    again = next((path.name[:4] for path in VERSIONS.glob(f"????_{slug}.py")), None)
    number = again or f"{len(numbers) + 1:04}"
    previous = f'"{int(number) - 1:04}"' if int(number) > 1 else "None"

    old = frozen(before=number)
    changed = {
        name: text
        for name, text in current().items()
        if old.get(name) != text and (name != TABLES or not old)
    }
    target = VERSIONS / f"{number}_{slug}.sql"
    by_hand = BLOCK.sub("", target.read_text(encoding="utf-8")) if target.exists() else ""
    blocks = "".join(f"-- >>> {name}\n{text}-- <<<\n" for name, text in changed.items())
    target.write_text(by_hand + blocks, encoding="utf-8")
    target.with_suffix(".py").write_text(
        SCRIPT.format(title=title[0].upper() + title[1:], number=number, previous=previous),
        encoding="utf-8",
    )
    print(f"{target.name}: {', '.join(changed) or 'nothing changed'}")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
