"""Turns notifications into wake-ups. Losing one, or the connection, costs the fallback poll."""

import threading
import time
from collections.abc import Callable, Collection

import psycopg
import structlog

from moonmind_queue._connection import open_connection, reconnect_delay
from moonmind_queue._hearing import NO_LISTENING, listen
from moonmind_queue.errors import QueueError

log = structlog.get_logger()

PULSE = 30.0  # seconds between proofs that the connection is alive
NAP = 0.5  # seconds: how late the thread notices that it should end
DEAF = (
    "a transaction pooler stands before the server and passes on no notification; this worker only"
    " polls. Let MOONMIND_LISTEN_DATABASE_URL name the server itself, or set it to none"
)


class Listener:
    """The listening thread of one worker.

    ``wake`` is called for work of one of ``agents`` (``None``: any), ``control`` for messages to
    ``name``; both are, and before them ``connected``, after every connect: what was notified
    before is lost. ``listening`` says whether notifications arrive.
    With ``none`` for a DSN, or behind a transaction pooler, there is nothing to hear: it says so
    once, and the worker polls.
    """

    def __init__(
        self,
        dsn: str,
        *,
        name: str,
        agents: Collection[str] | None,
        connected: Callable[[], None],
        wake: Callable[[], None],
        control: Callable[[], None],
    ) -> None:
        self.listening = False
        self._dsn, self._name, self._agents = dsn, name, agents
        self._connected, self._wake, self._control = connected, wake, control
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="listen", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        if self._dsn == NO_LISTENING:
            log.info("listen.off", jobs_come_by="poll", cancels_come_by="renewal")
        else:
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=2)

    def _listen(self) -> None:
        failures = 0
        while not self._done.is_set():
            try:
                with open_connection(
                    self._dsn, application_name="moonmind-queue listen"
                ) as session:
                    if not listen(session, self._dsn):
                        log.warning("listen.deaf", error=DEAF)
                        return
                    failures = 0
                    self.listening = True
                    self._connected()
                    self._control()
                    self._wake()
                    self._hear(session)
            except (QueueError, psycopg.Error) as error:
                failures += 1
                self.listening = False
                log.warning("listen.unreachable", error=str(error), failures=failures)
                self._done.wait(reconnect_delay(failures, 30))

    def _hear(self, session: psycopg.Connection) -> None:
        pulse = time.monotonic() + PULSE
        while not self._done.is_set():
            for message in session.notifies(timeout=NAP):
                if message.channel == "moonmind_queue_control":
                    if message.payload == self._name:
                        self._control()
                elif self._agents is None or message.payload in self._agents:
                    self._wake()
                if self._done.is_set():
                    return
            if time.monotonic() > pulse:  # a half-open connection says nothing by itself
                session.execute("select 1")
                pulse = time.monotonic() + PULSE
