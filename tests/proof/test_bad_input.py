"""Bad input: every public function refuses it with a typed error and writes nothing, or takes it.

The parameters come from the catalog, so a new function is tested from its first day. Of each call
one parameter is wrong at a time. Typed means: class 22 (data), 23514 (a constraint with a name), or
one of the queue's own; never an error that the code did not foresee.
"""

import json
import random
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moonmind_queue import InvalidArgument, Queue

TYPED = ("22", "23514", "MQ00")
MEGABYTES = 10 * 2**20
DEEP = 1000

# What is wrong, as PostgreSQL reads it; None is null.
WRONG: dict[str, list[str | None]] = {
    "text": [None, "", " ", "\t\n", "\x01", "🦉" * 300, "x" * MEGABYTES, "'; drop table job; --"],
    "integer": [None, "0", "-1", "-2147483648", "2147483647", "2147483648", "1.5", "many"],
    "bigint": [None, "0", "-1", str(-(2**63)), str(2**63 - 1), str(2**63), "1e3", "x"],
    "boolean": [None, "true", "false", "perhaps"],
    "interval": [None, "0", "-1 s", "-1 month 1 day", "-170000000 years", "170000000 years",
                 "infinity", "-infinity", "soon"],
    "timestamp with time zone": [None, "infinity", "-infinity", "4714-01-01 BC", "294276-12-31",
                                 "9999-12-31", "someday"],
    "jsonb": [None, "null", "1", '"x"', "[]", "[null]", "[[]]", "{}", "{", '{"a": "\\u0000"}',
              "[" * DEEP + "]" * DEEP, json.dumps({"x": "x" * MEGABYTES})],
    "text[]": [None, "{}", "{NULL}", '{""}', "{{a,b},{c,d}}", "[5:6]={a,b}",
               "{" + ",".join(["x"] * 10_000) + "}", "{" + "x" * MEGABYTES + "}", "{"],
    "bigint[]": [None, "{}", "{NULL}", "{0}", "{-1}", "{{1,2},{3,4}}", "[5:6]={1,2}",
                 "{" + ",".join(["1"] * 10_000) + "}", f"{{{2**63}}}", "{x}"],
    "jsonb[]": [None, "{}", "{NULL}", "{1}", '{"[]"}', '{{"{}","{}"},{"{}","{}"}}', "{{"],
    "timestamp with time zone[]": [None, "{}", "{NULL}", "{infinity}", "{-infinity}", "{someday}",
                                   "{2026-01-02Z,2026-01-01Z}", "{{2026-01-01Z},{2026-01-02Z}}"],
    "double precision": [None, "0", "-1", "1", "NaN", "infinity", "1e400", "half"],
    "numeric": [None, "0", "-1", "NaN", "infinity", "-infinity", "1e1000", "1e-1000", "half"],
    "date": [None, "infinity", "-infinity", "4714-01-01 BC", "9999-12-31", "5874897-12-31",
             "someday"],
    "bytea": [None, "", "\\x00", "\\x" + "00" * MEGABYTES, "\\xz"],
}  # fmt: skip


FUNCTIONS = sorted(
    path.stem
    for path in (Path(__file__).parents[2] / "sql").glob("*.sql")
    if not path.stem.startswith("_") and path.stem not in ("schema", "views", "grants")
)


class _Desk:
    """A queue with a job that is held, an artifact that is open, and what is valid by name."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection, queue = connection, Queue(connection)
        parent = queue.enqueue("k", key="parent")
        queue.enqueue("k", after=[parent])
        [self.held] = queue.claim("w", start=True)
        worker = queue.register_worker(
            "w", agents=None, kinds=None, capabilities=[], slots=1, host="h", pid=1, version="1"
        )
        digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        [artifact] = connection.execute(
            "select moonmind_queue.open_artifact(%s, %s, 'open', 'text/plain', 3, %s)",
            [self.held.id, self.held.token, digest],
        ).fetchone() or [0]
        connection.execute(
            "select moonmind_queue.add_schedule('nightly', '0 2 * * *', '{\"kind\": \"k\"}')"
        )
        [[cursor]] = connection.execute("select moonmind_queue.event_cursor()").fetchall()
        queue.seed_dag([{"id": "t", "agent": "codex"}])
        queue.begin_step(self.held, "push")
        self.valid = {
            "p_job_id": self.held.id, "p_token": self.held.token, "p_job_ids": [self.held.id],
            "p_tokens": [self.held.token], "p_results": ["{}"], "p_artifact_id": artifact,
            "p_id": worker, "p_after": [parent], "p_agent": "codex", "p_kind": "k", "p_key": "new",
            "p_payload": "{}", "p_jobs": '[{"kind": "k"}]', "p_result": "{}", "p_data": "{}",
            "p_name": "name", "p_type": "progress", "p_level": "info", "p_outcome": "retry",
            "p_content": b"abc"[:1], "p_content_type": "text/plain", "p_size_bytes": 0,
            "p_sha256": None, "p_worker": "w", "p_agents": ["codex"], "p_kinds": ["k"],
            "p_capabilities": ["gpu"], "p_slots": 1, "p_host": "h", "p_pid": 1, "p_version": "1",
            "p_limit": 1, "p_lease": "60 s", "p_start": True, "p_priority": 0,
            "p_run_at": "2026-01-01Z", "p_max_attempts": 3, "p_error": "no", "p_retry_in": "1 s",
            "p_reason": "why", "p_force": True, "p_message": "m", "p_older_than": "1 day",
            "p_stopped": False, "p_timeout": "1 h", "p_expires_at": "2030-01-01Z",
            "p_on_dependency_failure": "wait", "p_concurrency_key": "repo", "p_horizon": 0,
            "p_worker_id": worker, "p_asleep": True, "p_versions": "{}", "p_lasting": "1 h",
            "p_until": "2300-01-01Z", "p_states": ["failed"], "p_since": "2026-01-01Z",
            "p_pace": "1 s", "p_above": 0, "p_first_at": "2300-01-01Z", "p_dry_run": False,
            "p_scope": "agent", "p_max_running": 3, "p_timezone": "UTC", "p_base": "1 s",
            "p_cap": "2 s", "p_jitter": 0.25, "p_role": "moonmind_worker", "p_workers": ["w"],
            "p_repositories": ["acme/site"], "p_keep": "1 day", "p_last": 3,
            "p_cron": "0 2 * * *", "p_job": '{"kind": "k"}', "p_catch_up": "once",
            "p_next_at": "2300-01-01Z", "p_paused": True, "p_revision": 1, "p_due": ["2026-01-01Z"],
            "p_cursor": cursor, "p_stream": "stdout", "p_stage": "execute",
            "p_content_types": ["text/*"], "p_artifact_max_bytes": 1000,
            "p_tasks": '[{"id": "t", "agent": "codex"}]', "p_source": "dag.yaml",
            "p_dag": "agentmux", "p_step": "push", "p_text": "exited with 1", "p_pattern": "no",
            "p_all": False,
            "p_place": 1, "p_rest": "1 h", "p_most": 2, "p_pauses": False, "p_advice": "try",
            "p_thread": "t", "p_model": "gpt", "p_input": 3, "p_cached_input": 2, "p_output": 1,
            "p_reasoning": 1, "p_currency": "USD", "p_period": "day", "p_max_cost": 1,
            "p_max_tokens": 9,
            "p_on_success": "[]", "p_on_failure": "[]", "p_made_by": self.held.id, "p_max_open": 9,
            "p_max_per_day": 9, "p_max_depth": 3,
        }  # fmt: skip
        schedule = {"p_name": "nightly"}
        self.valid_for = {
            "append_log": {"p_content": "line"},
            "begin_step": {"p_content": "abc"},
            "end_step": {"p_content": ""},
            "set_failure_rule": {"p_source": "codex"},
            "open_artifact": {"p_sha256": digest},
            "set_limit": {"p_name": "codex"},
            "redrive": {"p_until": "2027-01-01Z"},
            "event_cursor": {"p_since": None},
            "set_price": {"p_since": "2026-01-01"},
            "drop_price": {"p_since": "2026-01-01"},
            "remove_schedule": schedule,
            "pause_schedule": schedule,
            "run_schedule": schedule,
            "run_schedule_now": schedule,
            "defer_schedule": schedule,
        }

    def parameters(self, function: str) -> dict[str, str]:
        """The parameters of a function and their types, as the catalog has them."""
        [(names, types)] = self.connection.execute(
            """
            select proargnames[:pronargs], array(
                select format_type(type, null)
                from unnest(proargtypes) with ordinality as given (type, place)
                order by place)
            from pg_proc
            where pronamespace = 'moonmind_queue'::regnamespace and proname = %s""",
            [function],
        ).fetchall()
        return dict(zip(names, types, strict=True))

    def arguments(self, function: str) -> dict[str, Any]:
        """Valid arguments; a KeyError names a parameter of which nobody has said what is valid."""
        own = self.valid_for.get(function, {})
        return {name: own.get(name, self.valid[name]) for name in self.parameters(function)}

    def refusal(self, function: str, given: dict[str, Any]) -> psycopg.Error | None:
        """Call, and undo what that did; return the error if it was refused."""
        try:
            with self.connection.transaction(force_rollback=True):
                self.call(function, given)
        except psycopg.Error as error:
            return error
        return None

    def call(self, function: str, given: dict[str, Any]) -> None:
        """Call with each value read as its parameter's type."""
        types = self.parameters(function)
        named = ", ".join(f"{name} => %({name})s::{types[name]}" for name in given)
        self.connection.execute(f"select * from moonmind_queue.{function}({named})", given)

    def rows(self) -> Any:
        """All rows of all tables, as one number."""
        tables = self.connection.execute(
            "select tablename from pg_tables where schemaname = 'moonmind_queue' order by 1"
        ).fetchall()
        query = " union all ".join(
            f"select '{table}', md5(string_agg(t::text, ',' order by t::text))"
            f" from moonmind_queue.{table} t"
            for (table,) in tables
        )
        return self.connection.execute(f"{query} order by 1").fetchall()


@pytest.fixture(scope="module")
def desk(session) -> _Desk:
    """A desk on which only what is undone is ever written."""
    return _Desk(session())


def _fault(error: psycopg.Error | None) -> str | None:
    """What is wrong with a refusal, if anything is."""
    if error is None:
        return None
    message = error.diag.message_primary or str(error)
    if not (error.sqlstate or "").startswith(TYPED):
        return f"{error.sqlstate} {message[:200]}"
    ours = error.sqlstate in ("22023", "22000", "MQ001", "MQ002", "MQ003", "MQ004", "MQ005")
    return f"{error.sqlstate}, {len(message)} characters" if ours and len(message) > 1000 else None


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_wrong_value_is_refused_with_a_typed_error_and_writes_nothing(desk, function):
    """Null, empty, huge, negative, infinite, nested, of another type: one parameter at a time."""
    valid, before = desk.arguments(function), desk.rows()
    refusal = desk.refusal(function, valid)
    assert refusal is None or refusal.sqlstate.startswith("MQ"), f"not valid: {refusal}"
    faults: dict[str, list[str]] = {}

    for name, type in desk.parameters(function).items():
        for wrong in WRONG[type]:
            given = {**valid, name: wrong}
            if error := desk.refusal(function, given):
                with pytest.raises(psycopg.Error):
                    desk.call(function, given)  # not undone this time
                assert desk.rows() == before, f"{function}({name} => {wrong!r:.40}) wrote something"
            if fault := _fault(error):
                faults.setdefault(name, []).append(f"{wrong!r:.40}: {fault}")

    assert faults == {}, f"{function}: {faults}"
    assert desk.rows() == before


@pytest.mark.parametrize("text", ["a\0b", "a\udcffb"], ids=["NUL", "no UTF-8"])
@pytest.mark.parametrize(
    "call",
    [
        lambda queue, job, text: queue.enqueue(text),
        lambda queue, job, text: queue.enqueue("k", agent=text),
        lambda queue, job, text: queue.enqueue("k", key=text),
        lambda queue, job, text: queue.enqueue("k", capabilities=[text]),
        lambda queue, job, text: queue.claim(text),
        lambda queue, job, text: queue.claim("w", agents=[text]),
        lambda queue, job, text: queue.append_event(job, text),
        lambda queue, job, text: queue.put_artifact(job, text, b""),
        lambda queue, job, text: queue.fail(job, "no", outcome=text),
    ],
)
def test_text_that_postgresql_cannot_hold_is_refused_by_the_client(desk, call, text):
    """An InvalidArgument, whoever notices; JSON, reasons and errors are made storable instead."""
    before = desk.rows()

    with pytest.raises(InvalidArgument):
        call(Queue(desk.connection), desk.held, text)

    assert desk.rows() == before


NAMES = ["kind", "payload", "agent", "name", "key", "priority", "run_at", "after", "max_attempts",
         "capabilities", "timeout", "expires_at", "on_dependency_failure", "concurrency_key",
         "typo"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_huge_value_of_a_job_is_refused_with_a_typed_error_or_taken(desk, name):
    """Ten megabytes that do not compress, as text, in a list and as the name itself."""
    huge, before = random.Random(name).randbytes(MEGABYTES // 2).hex(), desk.rows()  # noqa: S311
    jobs = [{"kind": "k", name: huge}, {"kind": "k", name: [huge]}, {"kind": "k", huge: 1}]

    faults = [_fault(desk.refusal("enqueue_many", {"p_jobs": json.dumps([job])})) for job in jobs]

    assert not any(faults), faults
    assert desk.rows() == before


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(
    max_examples=300, deadline=None, database=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(
    jobs=st.lists(
        JSON | st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3).map({"kind": "k"}.__or__),
        min_size=1,
        max_size=3,
    )
)
def test_jobs_of_any_json_are_enqueued_or_refused_with_a_typed_error(desk, jobs):
    """enqueue_many() foresees every JSON value of every name."""
    before = desk.rows()

    error = desk.refusal("enqueue_many", {"p_jobs": json.dumps(jobs)})

    assert _fault(error) is None
    assert desk.rows() == before
