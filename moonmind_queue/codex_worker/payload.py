"""What a ``codex_exec`` job asks for: one validator, for producers and for the worker.

::

    {"repository": "owner/repo", "instruction": "…", "ref": "main",
     "steps": [{"instruction": "…", "name": "tests"}],
     "workdirMode": "fresh_clone", "codex": {"model": "…", "effort": "high"},
     "publish": {"mode": "pr", "baseBranch": "main", "draft": false},
     "budget": {"tokens": 2000000, "cost": 1.50}}

Only the first two are required, and ``repoPath``, a directory on the worker, may stand in place of
``repository``: which directories a worker lends is its own to say (``local.py``). A key that is not
listed is refused by name, so a misspelt one cannot go unnoticed. Values end up on the command lines
of git, ssh and codex: whatever one of these could take for an option, a second command or a
credential is refused here. Model and effort are passed to Codex as they are; it has names of its
own for each release, so there is no table of aliases.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from moonmind_queue.errors import InvalidPayload

INSTRUCTION_LIMIT = 1_048_576  # characters Codex takes on its standard input

_FORMS = "must be owner/repo, https://<host>/<path>, git@<host>:<path> or ssh://git@<host>/<path>"
_SLUG = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_PATH = re.compile(r"[A-Za-z0-9_.~/+@%-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_BAD_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_STEPS = 50  # at most
_AROUND_A_STEP = 500  # characters that are said with it
_NONE = object()  # the repository of a payload that has a path
_BAD_REF_PART = re.compile(r"\.|.*\.lock$")


def _refuse(reason: str) -> PydanticCustomError:
    return PydanticCustomError("codex_exec", "{reason}", {"reason": reason})


def _safe_path(path: str) -> bool:
    parts = path.strip("/").split("/")
    return bool(_PATH.fullmatch(path)) and not any(
        not part or part.startswith("-") or part in (".", "..") for part in parts
    )


def _repository(value: str) -> str:
    if value.lower().startswith(("http://", "https://")):
        return _url(value)
    if value.startswith("ssh://git@"):
        return _url(value.replace("git@", "", 1)).replace("ssh://", "ssh://git@", 1)
    if value.startswith("git@"):
        host, _, path = value.removeprefix("git@").partition(":")
        if _HOST.fullmatch(host) and _safe_path(path):
            return value
    elif _SLUG.fullmatch(value) and _safe_path(value):
        return value
    raise _refuse(_FORMS)


def _url(value: str) -> str:
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        raise _refuse(_FORMS) from None
    if "@" in url.netloc:
        raise _refuse("URL must not include embedded credentials")
    if url.query or url.fragment or "?" in value or "#" in value:
        raise _refuse("URL must not include a query or a fragment")
    # urlsplit drops line breaks and tabs: a URL that is not put together as it was has had some.
    host = (url.hostname or "") + (f":{port}" if port is not None else "")
    whole = f"{url.scheme}://{host}{url.path}"
    decoded = unquote(url.path)  # a blank may be written %20, but not a way up or a line break
    if (
        whole.lower() != value.lower()
        or not _HOST.fullmatch(url.hostname or "")
        or not _safe_path(url.path)
        or _CONTROL.search(decoded)
        or ".." in decoded.split("/")
    ):
        raise _refuse(_FORMS)
    return whole


def _absolute(value: str) -> str:
    if not value.startswith("/") or any(ord(each) < 32 or ord(each) == 127 for each in value):
        raise _refuse("must be the absolute path of a directory on the worker")
    return value


def _blank_is_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _ref(value: str) -> str:
    if (
        value.startswith(("-", "/"))
        or value.endswith(("/", "."))
        or value == "@"
        or _BAD_IN_REF.search(value)
        or any(_BAD_REF_PART.match(part) for part in value.split("/"))
    ):
        raise _refuse("must be a branch, a tag or a commit")
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise _refuse("must not hold a NUL character")
    return value


_Model = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,99}$")]
_Effort = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[A-Za-z]{1,20}$")]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, str_strip_whitespace=True, hide_input_in_errors=True
    )


class CodexOptions(_Part):
    """What the job wants of Codex; it wins over the worker's settings."""

    model: Annotated[_Model | None, BeforeValidator(_blank_is_none)] = None
    effort: Annotated[_Effort | None, BeforeValidator(_blank_is_none)] = None


class Publish(_Part):
    """Where the changes go besides the patch: nowhere, to a branch, or to a pull request too."""

    mode: Literal["none", "branch", "pr"] = "none"
    base_branch: Annotated[
        Annotated[str, StringConstraints(max_length=250), AfterValidator(_ref)] | None,
        BeforeValidator(_blank_is_none),
    ] = Field(default=None, alias="baseBranch")
    """What the pull request is to be merged into; by default the repository's own branch."""
    draft: bool = False


class Budget(_Part):
    """What all attempts of the job may use together; the database sees to it."""

    tokens: Annotated[int, Field(strict=True, gt=0, lt=10**15)] | None = None
    cost: Annotated[float, Field(gt=0, lt=10**12, allow_inf_nan=False)] | None = None
    """In the currency of the prices."""


_Instruction = Annotated[
    str, StringConstraints(min_length=1, max_length=INSTRUCTION_LIMIT), AfterValidator(_no_nul)
]


class Step(_Part):
    """One step of the work: a turn of its own, after those before it."""

    instruction: _Instruction
    name: Annotated[
        Annotated[str, StringConstraints(max_length=100)] | None, BeforeValidator(_blank_is_none)
    ] = None


class CodexExecJobPayload(_Part):
    """A checked payload of kind ``codex_exec``; without a repository it has a ``repo_path``."""

    # Before what it rules out: validators see the fields that stand above theirs.
    repo_path: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_absolute)]
        | None,
        Field(alias="repoPath"),
    ] = None
    repository: Annotated[
        str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_repository)
    ]
    instruction: _Instruction
    steps: Annotated[tuple[Step, ...], Field(max_length=_STEPS)] = ()
    """Turns of the agent, one after the other; the first is told with the instruction."""
    ref: Annotated[
        Annotated[str, StringConstraints(max_length=250), AfterValidator(_ref)] | None,
        BeforeValidator(_blank_is_none),
    ] = None
    workdir_mode: Literal["fresh_clone", "reuse"] = Field("fresh_clone", alias="workdirMode")
    codex: CodexOptions = CodexOptions()
    publish: Publish = Publish()
    budget: Budget = Budget()

    @classmethod
    def parse(cls, payload: Mapping[str, Any]) -> Self:
        """Check a payload; raises ``InvalidPayload`` that names each field at fault."""
        try:
            return cls.model_validate(dict(payload))
        except ValidationError as error:
            faults = "; ".join(_fault(each) for each in error.errors(include_input=False))
            raise InvalidPayload(f"codex_exec: {faults}") from None

    def stored(self) -> dict[str, Any]:
        """Return the payload as the queue keeps it: trimmed, without what says nothing."""
        left_out = {"repository"} if self.repo_path else None
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=left_out)

    @model_validator(mode="before")
    @classmethod
    def _in_a_directory(cls, given: Any) -> Any:
        """Let a path stand for the repository; every other field is checked all the same."""
        if given.get("repoPath") is not None and given.get("repository") is None:
            return {**given, "repository": _NONE}
        return given

    @field_validator("repository", mode="wrap")
    @classmethod
    def _one_of_both(
        cls, value: Any, check: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> str:
        if value is _NONE:
            return ""
        if info.data.get("repo_path"):
            raise _refuse("there is a repoPath already: name one of them")
        return str(check(value))

    @field_validator("ref", "workdir_mode", "publish")
    @classmethod
    def _of_a_clone(cls, value: Any, info: ValidationInfo) -> Any:
        says = value.mode != "none" if isinstance(value, Publish) else value is not None
        if says and info.data.get("repo_path"):
            raise _refuse(
                "is of no use with a repoPath: the agent works on what is there, as it is"
                if info.field_name != "publish"
                else "cannot be done with a repoPath: the changes stay there, and are yours to "
                "commit"
            )
        return value

    @model_validator(mode="after")
    def _can_be_said(self) -> Self:
        if self.steps and self.said_at_once > INSTRUCTION_LIMIT:
            raise _refuse("instruction and the longest step are too long together: 1 MiB at most")
        return self

    @model_validator(mode="after")
    def _can_be_published(self) -> Self:
        if self.publish.mode == "pr" and self._on_github() is None:
            raise _refuse("publish.mode pr needs a repository on GitHub")
        return self

    @property
    def said_at_once(self) -> int:
        """How many characters the instruction has at most with a step."""
        longest = max((len(step.instruction) + _AROUND_A_STEP for step in self.steps), default=0)
        return len(self.instruction) + longest

    @property
    def slug(self) -> str:
        """The repository as GitHub calls it: owner/repo."""
        return self._on_github() or ""

    def _on_github(self) -> str | None:
        for before in (
            "https://github.com/",
            "git@github.com:",
            "ssh://git@github.com/",
            "",
        ):
            path = self.repository.removeprefix(before).removesuffix(".git").strip("/")
            if self.repository.startswith(before) and _SLUG.fullmatch(path):
                return path
        return None

    @property
    def clone_url(self) -> str:
        """What git clones: a slug is a repository on GitHub."""
        if _SLUG.fullmatch(self.repository):
            return f"https://github.com/{self.repository.removesuffix('.git')}.git"
        return self.repository


_OBJECTS: dict[str, type[BaseModel]] = {
    "codex": CodexOptions,
    "publish": Publish,
    "budget": Budget,
    "steps": Step,
}
_WORDS = {
    "missing": "is required",
    "string_too_short": "must not be empty",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "string_type": "must be a string",
    "tuple_type": "must be a list",
    "too_long": f"there may be {_STEPS} at most",
}


def _fault(error: Any) -> str:
    """Say what is wrong with one field; never its value, which may hold a secret."""
    where = ".".join(str(part)[:60] for part in error["loc"])
    kind = error["type"]
    if kind == "extra_forbidden":
        owner = _OBJECTS.get(str(error["loc"][0]), CodexExecJobPayload)
        known = (field.alias or name for name, field in owner.model_fields.items())
        return f"{where}: unknown key; there are {', '.join(known)}"
    if kind == "literal_error":
        choices = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        return f"{where}: must be one of: {choices}"
    if kind == "string_pattern_mismatch":
        return f"{where}: must be a name, such as Codex lists"
    if kind == "missing" and where == "repository":
        return "repository: is required, or a repoPath in its place"
    if kind == "codex_exec":
        return f"{where}: {error['msg']}" if where else str(error["msg"])
    message = _WORDS.get(kind) or error["msg"][:1].lower() + error["msg"][1:]
    return f"{where}: {message}"
