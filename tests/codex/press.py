"""A worker that publishes: a process that can be killed at any moment around its steps.

    python -m press SURROUNDINGS MOMENT

runs one job with the settings in a JSON file, and ends with SIGKILL at the moment of that number:
before and after each call of ``begin_step`` and ``end_step``, so that every effect lies between two
moments. It prints the moments that it passed; one that is never reached kills nobody.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from moonmind_queue import Worker
from moonmind_queue._attempt import JobContext
from moonmind_queue.codex_worker.codex import Codex
from moonmind_queue.codex_worker.handlers import CodexExec
from moonmind_queue.codex_worker.publish import Identity


def executor(surroundings: dict[str, Any]) -> CodexExec:
    """Return the executor of a worker with these surroundings."""
    name, email = surroundings["identity"]
    codex = Codex(
        environ=surroundings["environ"],
        program=None,
        sandbox="workspace-write",
        model=surroundings["model"],
        effort=None,
    )
    return CodexExec(
        codex,
        workdir=Path(surroundings["workdir"]),
        run_timeout=60,
        idle_timeout=60,
        artifact_max_bytes=10 * 1024 * 1024,
        identity=Identity(name=name, email=email),
        cache_max_gb=1,
    )


def work(surroundings: dict[str, Any]) -> bool:
    """Run one job as a worker does; says whether there was one."""
    kinds = {"codex_exec": executor(surroundings)}
    return Worker(surroundings["dsn"], kinds, name="press").run_once()


def die_at(moment: int) -> None:
    """Count the moments, and die at one of them."""
    passed = 0

    def pass_by(what: str) -> None:
        nonlocal passed
        print(what, flush=True)
        if passed == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    def beset(name: str) -> None:
        original = getattr(JobContext, name)

        def call(context: JobContext, step: str, *arguments: Any) -> Any:
            pass_by(f"before {name} {step}")
            answer = original(context, step, *arguments)
            pass_by(f"after {name} {step}")
            return answer

        setattr(JobContext, name, call)

    beset("begin_step")
    beset("end_step")


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    die_at(int(sys.argv[2]))
    work(given)
