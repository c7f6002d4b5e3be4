"""What a project tells every agent, in its files ``AGENTS.md``, and why we are the ones to tell it.

Codex reads these files itself, but only of a project that it trusts, and trust brings more: from
``.codex/config.toml`` it then starts programs, outside of any sandbox, that whoever wrote the
repository chose. Some releases trust every repository in which they may write, and remember it. So
each run says that the project is not trusted, and has the files with its instruction.
"""

import stat
from pathlib import Path

NAMES = ("AGENTS.override.md", "AGENTS.md")  # the first that a directory has


def steered(instruction: str, top: Path, folder: Path, room: int) -> str:
    """Put what the files from ``top`` down to ``folder`` say before an instruction.

    Of the files as much is left out as ``room``, in bytes, leaves none for.
    """
    told: list[str] = []
    between = [each for each in (folder, *folder.parents) if each.is_relative_to(top)]
    for each in reversed(between):
        text = _read(each, top, max(0, room - 200)).strip()
        room -= len(text.encode()) + 200
        if text:
            told.append(f"{each / 'AGENTS.md'} says:\n\n<INSTRUCTIONS>\n{text}\n</INSTRUCTIONS>\n")
    return "\n".join([*told, "---", instruction]) if told else instruction


def _read(folder: Path, top: Path, most: int) -> str:
    """Return what the file of a directory says; a link must not lead out of the project."""
    for name in NAMES:
        try:
            file = (folder / name).resolve(strict=True)
            if not file.is_relative_to(top.resolve()) or not stat.S_ISREG(file.stat().st_mode):
                continue
            with file.open("rb") as content:
                text = content.read(most).decode(errors="ignore").replace("\0", "")
        except (OSError, RuntimeError):  # there is none, it cannot be read, or links in a circle
            continue
        if text.strip():
            return text
    return ""
