"""What can go wrong, as one tree.

::

    QueueError
    ├── LeaseLost            MQ001  someone else has the job, or nobody: stop and discard
    ├── JobNotFound          MQ002
    ├── WrongState           MQ003  for example: retry of a running job
    ├── NotAllowed           MQ004  the role or its policy does not permit it
    ├── ScheduleNotFound     MQ005
    ├── InvalidArgument             a value that a SQL function refuses
    ├── InvalidPayload              a payload that its kind refuses
    ├── UnknownKind                 no executor is registered for the kind
    ├── ArtifactTooLarge            more bytes than the limit allows
    ├── ArtifactCorrupt             bytes that do not match their digest
    ├── SettingsError               an environment variable that cannot be used; names it
    ├── SchemaMismatch              database and package disagree; says what to run
    ├── DatabaseUnavailable         no connection, or transaction given up: try again
    └── DatabaseError               anything else PostgreSQL says; the cause is attached

Errors of the database are told apart by SQLSTATE, never by their text.
"""

import psycopg

MESSAGE_LIMIT = 2000
NO_CONNECTION = "08000"


class QueueError(Exception):
    """Base of every error this package raises on purpose."""

    sqlstate: str | None = None


class LeaseLost(QueueError):
    """The lease is no longer held: stop the work and change nothing."""

    sqlstate = "MQ001"


class JobNotFound(QueueError):
    """There is no such job."""

    sqlstate = "MQ002"


class WrongState(QueueError):
    """The job's state does not permit this transition."""

    sqlstate = "MQ003"


class NotAllowed(QueueError):
    """The role, or the policy bound to it, does not permit this."""

    sqlstate = "MQ004"


class ScheduleNotFound(QueueError):
    """There is no such schedule."""

    sqlstate = "MQ005"


class InvalidArgument(QueueError):
    """A SQL function refused a value."""


class InvalidPayload(QueueError):
    """A payload does not fit its kind; the message names each field."""


class UnknownKind(QueueError):
    """No executor is registered for a kind."""


class ArtifactTooLarge(QueueError):
    """An artifact exceeds the size limit."""


class ArtifactCorrupt(QueueError):
    """The bytes of an artifact do not match its digest."""


class SettingsError(QueueError):
    """A setting is missing or cannot be used."""


class SchemaMismatch(QueueError):
    """The database's schema is not one this package can work with."""


class WorkerUnfit(QueueError):
    """A job showed that this machine cannot do such work; the worker has ended."""


class DatabaseUnavailable(QueueError):
    """The database cannot be reached, the connection broke, or it gave the transaction up."""


class DatabaseError(QueueError):
    """The database refused for another reason; psycopg's error is the cause."""


_BY_SQLSTATE: dict[str, type[QueueError]] = {
    error.sqlstate: error for error in QueueError.__subclasses__() if error.sqlstate
}
_BAD_ARGUMENT = ("22", "23")  # data exception, integrity constraint violation
_NO_SCHEMA = ("3F000", "42P01", "42883")  # no such schema, table or view, function
# connection, transaction given up (deadlock, serialization), shutdown, read-only, too many clients
_UNAVAILABLE = ("08", "40", "57P", "25006", "53300")


def from_postgres(error: psycopg.Error) -> QueueError:
    """Translate a psycopg error; only its primary message is kept, never a statement's values."""
    state = error.sqlstate
    if not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        state = NO_CONNECTION
    elif not state and isinstance(error, psycopg.DataError):
        state = "22000"
    return from_sqlstate(state or "", error.diag.message_primary or str(error))


def from_sqlstate(state: str, message: str) -> QueueError:
    """Make the error of an SQLSTATE, which is empty when there is none to be had."""
    message = message.strip()[:MESSAGE_LIMIT]
    if known := _BY_SQLSTATE.get(state):
        return known(message)
    if state.startswith(_UNAVAILABLE):
        return DatabaseUnavailable(message)
    if state.startswith(_BAD_ARGUMENT):
        return InvalidArgument(message)
    if state == "42501":
        return NotAllowed(message)
    if state in _NO_SCHEMA:
        return SchemaMismatch(f"{message}; run: moonmind-queue migrate")
    return DatabaseError(message)


def from_encoding(error: UnicodeEncodeError) -> InvalidArgument:
    """Translate what no driver can send: a lone surrogate, as from bytes of a command line."""
    odd = error.object[error.start : error.end][:10]
    return InvalidArgument(f"a text holds {odd!r}, which UTF-8 cannot: {error.reason}")


def from_connecting(error: psycopg.Error | UnicodeError) -> QueueError:
    """Translate an error of connecting; a DSN that cannot be read is never repeated in it."""
    if isinstance(error, psycopg.ProgrammingError | UnicodeError):  # the latter: no UTF-8, no IDN
        return SettingsError(
            "DATABASE_URL is not a libpq URL or DSN (for example postgresql://user@host/database)"
        )
    return DatabaseUnavailable(str(error).strip()[:MESSAGE_LIMIT])
