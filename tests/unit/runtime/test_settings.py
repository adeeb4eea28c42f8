"""Flags become settings: defaults, types, states, environment, and what is shown of them."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import ValidationError, model_validator

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.runtime.settings import (
    ByteSize,
    GoDuration,
    ModelDuration,
    Settings,
    Unsigned,
    accepted,
    flag,
    load,
    ours,
    refused,
)


class Example(Settings):
    """One flag of each kind."""

    some_path: str = flag("some.path", "./data", "A path.")
    some_age: ModelDuration = flag("some-age", "15d", "An age.")
    some_pause: GoDuration = flag("some.pause", "1.5s", "A pause.")
    some_size: ByteSize = flag("some-size", "1KB", "A size.")
    some_count: Unsigned = flag("some-count", "3", "A count.")
    some_switch: bool = flag("some-switch", "true", "A switch.")
    some_mode: Literal["a", "b"] = flag("some-mode", "a", "A mode.")
    some_list: tuple[str, ...] = flag("some-list", (), "A list.")
    some_secret: str = flag("some-secret", "", "A secret.", secret=True)
    some_idle: int = accepted("some-idle", "1", "Idle.", reason="nothing to do")
    some_wait: ModelDuration = refused("some-wait", "60s", "Refused.", hint="leave it out")
    our_own: int = ours("our-own", "7", "Ours.")

    @model_validator(mode="after")
    def _agree(self):
        if self.some_count > self.our_own:
            raise ValueError("--some-count must not be above --our-own")
        return self


def test_defaults_are_typed():
    """Defaults are written as users type them and arrive as values."""
    example = load(Example, {}, {})
    assert (example.some_path, example.some_age, example.some_pause) == (
        "./data",
        1_296_000_000,
        1500,
    )
    assert (example.some_size, example.some_count, example.some_switch) == (1024, 3, True)
    assert example.some_list == ()
    assert example.changed() == {}


def test_the_command_line_goes_before_the_environment():
    """A variable mirrors its flag, and yields to it; repeatable ones split at line ends."""
    environment = {
        "THANOSTACK_SOME_PATH": "/env",
        "THANOSTACK_SOME_AGE": "1d",
        "THANOSTACK_SOME_LIST": "x\ny",
        "THANOSTACK_UNKNOWN_PORT": "tcp://10.0.0.1",
    }
    example = load(Example, {"some.path": ["/flag"]}, environment)
    assert (example.some_path, example.some_age) == ("/flag", 86_400_000)
    assert example.some_list == ("x", "y")
    assert set(example.changed()) == {"some.path", "some-age", "some-list"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("some-age", "1.5h", '--some-age: not a valid duration string: "1.5h"'),
        ("some.pause", "1q", '--some.pause: time: invalid duration "1q"'),
        ("some-size", "huge", "--some-size: not a valid size"),
        ("some-count", "-1", "--some-count: input should be greater than or equal to 0, got '-1'"),
        ("some-count", "x", "--some-count: not a number: 'x'"),
        ("some-switch", "maybe", "--some-switch: must be true or false, got 'maybe'"),
        ("some-mode", "c", "--some-mode: must be one of a, b, got 'c'"),
        ("some-age", "5", '--some-age: not a valid duration string: "5"$'),
        ("some-wait", "5s", "--some-wait: leave it out"),
        ("some-wait", "never", "--some-wait: leave it out"),
        ("some-count", "9", "--some-count must not be above --our-own"),
    ],
)
def test_what_cannot_be_used_names_the_flag(name, text, message):
    """Every error says which flag, and what would be right."""
    with pytest.raises(SettingsInvalid, match="^" + message.replace("(", r"\(")):
        load(Example, {name: [text]}, {})


def test_a_refused_flag_may_repeat_its_default():
    """A manifest that spells out the default, in any spelling, starts."""
    assert load(Example, {"some-wait": ["1m"]}, {}).some_wait == 60_000


def test_flags_without_effect_are_told_when_set():
    """The reason is there for the log, only if someone set the flag."""
    assert load(Example, {}, {}).without_effect() == {}
    assert load(Example, {"some-idle": ["2"]}, {}).without_effect() == {
        "some-idle": "nothing to do"
    }


def test_secrets_are_masked_wherever_settings_are_shown():
    """The effective configuration is loggable."""
    example = load(Example, {"some-secret": ["hunter2"]}, {})
    assert example.effective()["some-secret"] == example.changed()["some-secret"] == "<secret>"
    assert load(Example, {}, {}).effective()["some-secret"] == ""
    assert example.effective()["some-age"] == "15d"


def test_settings_never_change():
    """A frozen class refuses assignment."""
    with pytest.raises(ValidationError):
        load(Example, {}, {}).some_path = "other"


def test_a_field_must_be_named_as_its_flag():
    """A misnamed field is found when the class is made."""
    with pytest.raises(AssertionError, match="is declared as wrong"):

        class Wrong(Settings):
            wrong: str = flag("right", "", "…")
