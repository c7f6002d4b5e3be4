"""noop: waits, then succeeds, and asks nothing of its payload but a number of seconds."""

import threading

import pytest

from moonmind_queue import InvalidPayload, Stopped
from moonmind_queue.executors.noop import Noop
from moonmind_queue.settings import Settings


class Wait:
    """A context whose waiting is only written down: two seconds are too long to wait for."""

    def __init__(self, stopped: bool = False) -> None:
        self.waited: list[float] = []
        self.stop = threading.Event()
        self.stop.wait = lambda timeout=None: self.waited.append(timeout) or stopped


class Given:
    """A job of which only the payload matters."""

    def __init__(self, payload):
        self.payload = payload


@pytest.mark.parametrize("payload", [{}, {"goal": "anything"}])
def test_it_waits_two_seconds_unless_told_otherwise(monkeypatch, payload):
    """Without a setting and whatever else the payload says, noop takes two seconds."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://host/database")
    monkeypatch.delenv("MOONMIND_NOOP_SECONDS", raising=False)
    context = Wait()

    result = Noop.configure(Settings.load()).run(Given(payload), context)

    assert context.waited == [2.0]
    assert result == {"status": "ok", "seconds": 2.0, "note": "noop executed"}


def test_the_payloads_seconds_win():
    """The payload decides over the setting."""
    context = Wait()

    Noop(2).run(Given({"seconds": 0.5}), context)

    assert context.waited == [0.5]


def test_a_stop_ends_the_wait():
    """Told to stop, noop says so instead of succeeding."""
    with pytest.raises(Stopped):
        Noop(2).run(Given({}), Wait(stopped=True))


@pytest.mark.parametrize("seconds", ["2", -1, True, None, float("nan"), [1]])
def test_seconds_that_are_none_are_refused(seconds):
    """Anything but a number of at least 0 is refused by the field's name."""
    with pytest.raises(InvalidPayload, match="noop: seconds: must be a number of at least 0"):
        Noop.validate({"seconds": seconds})


def test_other_keys_are_kept():
    """A payload for people, such as a goal, is stored as it is."""
    assert Noop.validate({"goal": "x"}) == {"goal": "x"}
