"""How a container's flags are declared, read and checked: one frozen class a container.

A field is one flag. It is declared by one of four helpers, which say what the flag does *here*:

    flag(...)       supported: a test sees its effect
    accepted(...)   accepted without effect, for a stated reason
    refused(...)    refused with a hint, unless it repeats the default
    ours(...)       supported, and unknown to Thanos

Upstream's names and defaults are kept letter for letter, defaults as the texts a user would type.
A value comes from the command line, else from the environment (`--tsdb.path` is mirrored by
`THANOSTACK_TSDB_PATH`; repeatable flags split at line ends), else it is the default.

    class Settings(SharedSettings):
        tsdb_path: Path = flag("tsdb.path", "./data", "Folder of the TSDBs, one a tenant.")

Invariants: a field's name is its flag's name with `.` and `-` as `_`; settings never change.

Deliberately elsewhere: splitting a command line (`command_line`), flags that several containers
share (`shared_flags`), the table for the docs (`flag_table`).
"""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails

from thanostack.lib.foundation.errors import InvalidInput, SettingsInvalid
from thanostack.lib.foundation.units import (
    DurationMs,
    format_duration,
    parse_go_duration,
    parse_model_duration,
    parse_size,
)

# It would read the entry points of all distributions for plugins: a MiB for none.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

ENVIRONMENT_PREFIX = "THANOSTACK_"
MASK = "<secret>"


class State(Enum):
    """What a flag does here."""

    SUPPORTED = "supported"
    WITHOUT_EFFECT = "accepted without effect"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag as users see it.

    Args:
        name: without the leading dashes, as upstream spells it.
        default: as typed; a tuple where repeatable.
        help: meaning, unit, effect of off or zero.
        state: what it does here.
        note: why it has no effect, or what to do instead; empty when supported.
        placeholder: what the help shows for the value.
        hidden: left out of the short help, as upstream hides it.
        secret: masked wherever settings are shown.
        upstream: whether Thanos has it.
    """

    name: str
    default: str | tuple[str, ...]
    help: str
    state: State = State.SUPPORTED
    note: str = ""
    placeholder: str = ""
    hidden: bool = False
    secret: bool = False
    upstream: bool = True

    @property
    def variable(self) -> str:
        """Return the environment variable that mirrors the flag."""
        return ENVIRONMENT_PREFIX + re.sub(r"[^A-Za-z0-9]", "_", self.name).upper()

    @property
    def field(self) -> str:
        """Return the name of the field that declares it."""
        return re.sub(r"[^A-Za-z0-9]", "_", self.name)


def _declare(declared: Flag) -> Any:
    return Field(default=declared.default, json_schema_extra={"flag": declared})  # type: ignore[dict-item]


def flag(
    name: str,
    default: str | tuple[str, ...],
    help: str,  # noqa: A002 - the word users know
    *,
    placeholder: str = "",
    hidden: bool = False,
    secret: bool = False,
) -> Any:
    """Declare an upstream flag that does here what it does there."""
    return _declare(
        Flag(name, default, help, placeholder=placeholder, hidden=hidden, secret=secret)
    )


def accepted(
    name: str,
    default: str | tuple[str, ...],
    help: str,  # noqa: A002
    *,
    reason: str,
    hidden: bool = False,
) -> Any:
    """Declare an upstream flag that is taken and changes nothing, and say why."""
    return _declare(Flag(name, default, help, State.WITHOUT_EFFECT, reason, hidden=hidden))


def refused(
    name: str,
    default: str | tuple[str, ...],
    help: str,  # noqa: A002
    *,
    hint: str,
    hidden: bool = False,
    secret: bool = False,
) -> Any:
    """Declare an upstream flag that stops the start unless it repeats its default."""
    return _declare(Flag(name, default, help, State.REFUSED, hint, hidden=hidden, secret=secret))


def ours(
    name: str,
    default: str | tuple[str, ...],
    help: str,  # noqa: A002
    *,
    placeholder: str = "",
    hidden: bool = False,
) -> Any:
    """Declare a flag that Thanos does not have."""
    return _declare(
        Flag(name, default, help, placeholder=placeholder, hidden=hidden, upstream=False)
    )


def _from_text(parse: Any) -> BeforeValidator:
    def convert(value: Any) -> Any:
        try:
            return parse(value) if isinstance(value, str) else value
        except InvalidInput as error:
            raise ValueError(str(error)) from error

    return BeforeValidator(convert)


GoDuration = Annotated[DurationMs, _from_text(parse_go_duration)]
"""Milliseconds, typed as Go writes durations (`1.5h`, `300ms`; no days)."""
ModelDuration = Annotated[DurationMs, _from_text(parse_model_duration)]
"""Milliseconds, typed as Prometheus writes durations (`1h30m`, `15d`)."""
ByteSize = Annotated[int, _from_text(parse_size)]
"""Bytes, typed with a unit (`512MB`); units are powers of 1024."""
Unsigned = Annotated[int, Field(ge=0)]

T = TypeVar("T", bound="Settings")


class Settings(BaseModel):
    """The base of every container's settings; read it with `load`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        for name, declared in cls.flags().items():
            assert name == declared.field, f"--{declared.name} is declared as {name}"

    @classmethod
    def flags(cls) -> dict[str, Flag]:
        """Return the declared flags by field name, in order of declaration."""
        found = {}
        for name, info in cls.model_fields.items():
            extra = info.json_schema_extra
            assert isinstance(extra, dict), f"{name} is not declared as a flag"
            found[name] = typing.cast("Flag", extra["flag"])
        return found

    @classmethod
    def is_boolean(cls, field: str) -> bool:
        """Return whether a field is a switch that takes no value."""
        return cls.model_fields[field].annotation is bool

    @classmethod
    def is_repeatable(cls, field: str) -> bool:
        """Return whether a field collects the values of a repeated flag."""
        return get_origin(cls.model_fields[field].annotation) is tuple

    def check(self) -> None:
        """Look at the files that flags name, before anything slow begins.

        Raises:
            SettingsInvalid: naming the flag, the file and what to do.
        """

    def effective(self) -> dict[str, str]:
        """Return every flag with its value as text, secrets masked; to be logged once."""
        return {
            declared.name: MASK
            if declared.secret and getattr(self, field)
            else _as_text(getattr(self, field), type(self).model_fields[field].metadata)
            for field, declared in self.flags().items()
        }

    def changed(self) -> dict[str, str]:
        """Return the part of `effective` that is not the default."""
        shown = self.effective()
        return {
            declared.name: shown[declared.name]
            for field, declared in self.flags().items()
            if field in self.model_fields_set
        }

    def without_effect(self) -> dict[str, str]:
        """Return flags that were set and change nothing, with the reason; to be logged once."""
        return {
            declared.name: declared.note
            for field, declared in self.flags().items()
            if declared.state is State.WITHOUT_EFFECT and field in self.model_fields_set
        }


def _as_text(value: Any, metadata: Sequence[Any]) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if any(item in metadata for item in (*_markers(GoDuration), *_markers(ModelDuration))):
        return format_duration(value)
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value)


def _markers(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation)[1:]


def load(
    settings: type[T],
    given: Mapping[str, Sequence[str]],
    environment: Mapping[str, str] | None = None,
) -> T:
    """Return settings from a split command line and the environment.

    Args:
        settings: the container's class.
        given: flag name → the texts given, as `command_line.split` returns them.
        environment: variables; the process's own by default.

    Raises:
        SettingsInvalid: for a value that does not parse, a refused flag, or flags that
            contradict each other; the text names the flag and what to do.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for field, declared in settings.flags().items():
        texts = list(given.get(declared.name, ()))
        if not texts and declared.variable in environment:
            texts = environment[declared.variable].split("\n")
        if not texts:
            continue
        value = tuple(texts) if settings.is_repeatable(field) else texts[-1]
        if value == declared.default:
            continue
        if declared.state is State.REFUSED and not is_default(settings, field, value):
            raise SettingsInvalid(f"--{declared.name}: {declared.note}")
        values[field] = value
    try:
        return settings(**values)
    except ValidationError as error:
        raise SettingsInvalid(_explain(settings, error)) from error


def is_default(settings: type[Settings], field: str, value: Any) -> bool:
    """Return whether a text is a flag's default in whatever spelling, such as 0m for 0s."""
    info = settings.model_fields[field]
    # `Annotated` wants at least one marker, and a plain type has none.
    annotation: Any = Annotated[info.annotation, "", *info.metadata]
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    try:
        return bool(adapter.validate_python(value) == adapter.validate_python(info.default))
    except ValidationError:
        return False


def problems(settings: type[Settings], values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is wrong with values, as (flag, text); no flag for what is wrong together.

    Args:
        settings: the container's class.
        values: field → text, or texts where it is repeatable.
    """
    try:
        settings(**values)
    except ValidationError as error:
        flags = settings.flags()
        return [
            (
                flags[str(detail["loc"][0])].name if detail["loc"] else "",
                _explain_one(settings, detail),
            )
            for detail in error.errors()
        ]
    return []


def _explain(settings: type[Settings], error: ValidationError) -> str:
    return "; ".join(_explain_one(settings, detail) for detail in error.errors())


def _explain_one(settings: type[Settings], detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    if not detail["loc"]:
        return message
    name = settings.flags()[str(detail["loc"][0])].name
    if detail["type"] == "literal_error":
        allowed = detail["ctx"]["expected"].replace(" or ", ", ").replace("'", "")
        return f"--{name}: must be one of {allowed}, got {detail['input']!r}"
    if detail["type"].startswith(("int_", "float_")):
        return f"--{name}: not a number: {detail['input']!r}"
    if detail["type"] == "bool_parsing":
        return f"--{name}: must be true or false, got {detail['input']!r}"
    given = detail["input"]
    got = " ".join(map(str, given)) if isinstance(given, tuple | list) else str(given)
    text = f"--{name}: {message[:1].lower()}{message[1:]}"
    return text if f'"{got}"' in text else f"{text}, got {got!r}"
