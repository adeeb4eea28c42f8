"""The operator's table of flags is what the services' settings say now.

python -P tests/tidy/test_operator_flags.py      write it
"""

from thanostack.runtime.cli import settings_of
from thanostack.runtime.settings import State
from thanostack_operator.manifests.known_flags import FILE


def table():
    """Return one line a flag: command, name, kind, what to do instead of a refused one."""
    lines = []
    for command in ("receive", "query"):
        settings = settings_of(command)
        for field, flag in sorted(settings.flags().items(), key=lambda item: item[1].name):
            kind = "many" if settings.is_repeatable(field) else "once"
            kind = "switch" if settings.is_boolean(field) else kind
            refused = flag.note if flag.state is State.REFUSED else ""
            lines.append(f"{command}\t{flag.name}\t{kind}\t{refused}\n")
    return "".join(lines)


def test_the_table_is_current():
    assert FILE.read_text(encoding="utf-8") == table(), f"run: python -P {__file__}"


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf-8")
