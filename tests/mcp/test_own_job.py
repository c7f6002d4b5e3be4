"""A server that is told which job its agent works on."""

from waiting import eventually


def test_what_an_agent_adds_names_the_job_that_it_works_on(own, connected):
    """MOONMIND_JOB_ID of the server's environment; the agent itself is not asked."""
    job = connected.enqueue("noop")

    made = own.peer("queue", MOONMIND_JOB_ID=str(job)).call("queue.enqueue", kind="noop")

    rows = connected.select("select job_id, from_job_id, how from moonmind_queue.job_origin")
    assert rows == [{"job_id": made["id"], "from_job_id": job, "how": "job"}]


def test_an_agent_is_held_to_the_generations_of_its_login(own, connected):
    """The refusal says what there is too much of."""
    first = connected.enqueue("noop")
    second = connected.enqueue("noop", made_by=first)
    connected.set_allowance(connected.connection.info.user, max_depth=1)

    peer = own.peer("queue", MOONMIND_JOB_ID=str(second))
    code, message = peer.refused("queue.enqueue", kind="noop")

    assert code == "job_not_authorized"
    assert "admits 1 generations of jobs made by jobs" in message


def test_what_may_follow_counts_within_the_allowance_of_its_login(own, connected):
    """A job is refused with all that it may bring, for that is never refused later."""
    connected.set_allowance(connected.connection.info.user, max_open=2, kinds=["noop"])
    peer = own.peer("queue")
    noop = {"kind": "noop"}

    code, message = peer.refused("queue.enqueue", **noop, onSuccess=[noop], onFailure=[noop, noop])
    assert code == "job_not_authorized"
    assert "admits 2 open jobs; with these and all that may follow it would have 3" in message
    shell = {"kind": "shell", "payload": {"cmd": ["true"]}}
    assert peer.refused("queue.enqueue", **noop, onFailure=[shell])[0] == "job_not_authorized"
    peer.call("queue.enqueue", **noop, onSuccess=[noop])


def test_a_server_does_not_start_with_a_job_that_is_no_number(own, tmp_path):
    """The error names the variable."""
    log = tmp_path / "log"

    process = own.process(log, "--profile", "queue", MOONMIND_JOB_ID="seven")

    assert eventually(lambda: process.poll() is not None)
    assert process.returncode == 2
    assert "MOONMIND_JOB_ID: 'seven' is not the id of a job" in log.read_text()
