"""How much CPU processes have spent, from ``/proc``: exact, where ticks are too coarse."""

from pathlib import Path

from benchmarks.arena import Database

SESSIONS = """
select coalesce(array_agg(pid), '{}') from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""


def of_process(pid: int) -> float:
    """Return the seconds of a process, all its threads together; 0 when it has ended."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return 0.0
    return sum(_nanoseconds(thread / "schedstat") for thread in threads) / 1e9


def of_sessions(database: Database) -> float:
    """Return the seconds of the server's processes for all sessions of a database but our own."""
    return sum(of_process(pid) for pid in database.value(SESSIONS))


def _nanoseconds(schedstat: Path) -> int:
    try:
        return int(schedstat.read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):  # a thread that has just ended
        return 0
