"""Compile and run the TypeScript of docs/sql.md on a real PostgreSQL: what CI checks of it.

Apart from the test-suite, which needs no Node.js: this needs node, npm and the npm registry. The
server is the one that ``test_server`` chooses.
"""

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import psycopg
import test_server
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from moonmind_queue import migrate

ROOT = Path(__file__).parent.parent
PACKAGES = ["pg@8.23.1", "@types/pg@8.23.1", "@types/node@26.6.6", "typescript@5.9.3"]
COMPILE = "--strict --noUncheckedIndexedAccess --target es2022 --module nodenext --types node"
DATABASE, STRANGER = f"mq_typescript_{os.getpid()}", f"mq_stranger_{os.getpid()}"
SECRET = secrets.token_hex(8)


def main() -> None:
    """Prove that the program enqueues with its row, and does neither where it is refused."""
    [program] = re.findall(
        r"^```typescript\n(.*?)^```$", (ROOT / "docs" / "sql.md").read_text(), re.M | re.S
    )
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), program)
        server = test_server.start()
        print(server.title)
        try:
            with psycopg.connect(server.dsn, autocommit=True) as admin:
                admin.execute(f"create database {DATABASE}")
                try:
                    check(Path(folder), make_conninfo(server.dsn, dbname=DATABASE))
                finally:
                    admin.execute(f"drop database {DATABASE} with (force)")
                    admin.execute(f"drop role if exists {STRANGER}")
        finally:
            server.stop()


def build(folder: Path, program: str) -> None:
    """Install what the program needs and compile it with every check there is."""
    (folder / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
    (folder / "main.ts").write_text(program)
    install = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--silent", *PACKAGES]
    subprocess.run(install, cwd=folder, check=True)
    compiler = ["node", "node_modules/typescript/bin/tsc", *COMPILE.split(), "main.ts"]
    subprocess.run(compiler, cwd=folder, check=True)


def check(folder: Path, dsn: str) -> None:
    """Run the program as somebody who may enqueue, then as somebody who may not."""
    migrate.upgrade(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "create table invoice"
            " (id bigint generated always as identity primary key, customer text not null)"
        )
        connection.execute(f"create role {STRANGER} login password '{SECRET}'")
        connection.execute(f"grant usage on schema moonmind_queue to {STRANGER}")
        connection.execute(f"grant insert, select on invoice to {STRANGER}")
        made = run(folder, url(dsn))
        refused = run(folder, url(make_conninfo(dsn, user=STRANGER, password=SECRET)))
        rows = connection.execute(
            "select invoice.id, customer, kind, key, payload from invoice"
            " full join moonmind_queue.job_overview on key = 'invoice-' || invoice.id"
        ).fetchall()
        connection.execute(f"drop owned by {STRANGER}")

    assert (made.returncode, made.stdout) == (0, "job 1\n"), made
    assert refused.returncode == 1, refused
    assert refused.stderr.startswith("refused with SQLSTATE 42501: permission denied"), refused
    assert rows == [(1, "acme", "send_invoice", "invoice-1", {"invoice": 1})], rows
    print("the TypeScript of docs/sql.md enqueues with its row, or does neither")


def run(folder: Path, database: str) -> "subprocess.CompletedProcess[str]":
    """Run the compiled program."""
    return subprocess.run(
        ["node", "main.js"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": database},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def url(dsn: str) -> str:
    """Return a DSN as a URL: node-postgres reads nothing else."""
    part = {name: quote(str(value), safe="") for name, value in conninfo_to_dict(dsn).items()}
    secret = f":{part['password']}" if "password" in part else ""
    return f"postgresql://{part['user']}{secret}@{part['host']}:{part['port']}/{part['dbname']}"


if __name__ == "__main__":
    sys.exit(main())
