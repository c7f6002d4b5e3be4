"""Many clients that cost next to nothing: pgbench, which stands beside initdb, runs a script."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

from local_postgres import find_binaries
from psycopg.conninfo import conninfo_to_dict

VARIABLES = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}


class ClientsError(Exception):
    """The clients could not do what their script says; carries what pgbench printed."""


def statements_per_second(dsn: str, statement: str, clients: int, seconds: float) -> float:
    """Run one prepared statement again and again, each time in a transaction of its own."""
    binaries, _ = find_binaries()
    where = conninfo_to_dict(dsn)
    surroundings = {
        **os.environ,
        **{name: str(where[key]) for key, name in VARIABLES.items()},
        # The server's own libpq, for the system's may be older.
        "LD_LIBRARY_PATH": str(binaries.parent / "lib"),
    }
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(statement)
        script.flush()
        done = subprocess.run(
            [
                Path(binaries, "pgbench"),
                *("--no-vacuum", "--protocol=prepared", "--jobs=1", f"--client={clients}"),
                *(f"--time={max(round(seconds), 1)}", f"--file={script.name}"),
                str(where["dbname"]),
            ],
            env=surroundings,
            capture_output=True,
            text=True,
        )
    rate = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode or not rate:
        raise ClientsError(f"pgbench failed:\n{done.stderr[-2000:]}")
    return float(rate[1])
