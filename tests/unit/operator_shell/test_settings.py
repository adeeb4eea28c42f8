"""The command line, as far as it is more than a list of flags."""

import socket

import pytest

from thanostack_operator.settings import parse


def test_two_operators_on_one_host_do_not_share_an_identity(monkeypatch):
    monkeypatch.delenv("POD_NAME", raising=False)
    first, second = parse(["run"]).identity, parse(["run"]).identity
    assert first != second
    assert first.startswith(f"{socket.gethostname()}_")


def test_a_pod_is_known_by_its_name(monkeypatch):
    """A container that starts again in it need not wait for its own Lease to expire."""
    monkeypatch.setenv("POD_NAME", "operator-0")
    assert parse(["run"]).identity == "operator-0"
    assert parse(["run", "--identity=me"]).identity == "me"


def test_namespaces_add_up_and_none_is_all_of_them():
    assert parse(["run", "--namespace=a", "--namespace=b"]).namespaces == ("a", "b")
    assert parse(["release"]).namespaces == ()


@pytest.mark.parametrize("line", [[], ["run", "-f", "x"], ["plan"], ["run", "--log-level=loud"]])
def test_wrong_lines_are_refused(line, capsys):
    with pytest.raises(SystemExit):
        parse(line)
    assert "usage:" in capsys.readouterr().err
