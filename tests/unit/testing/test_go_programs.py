"""The main module that a program of another module is built in."""

import pytest

from thanostack.testing import go_programs
from thanostack.testing.go_programs import GoProgram, main_module_text


@pytest.fixture
def module(monkeypatch):
    """What `go mod edit -json` says of the module."""
    said = {"Go": "1.26", "Require": [], "Replace": [], "Exclude": []}
    monkeypatch.setattr(go_programs, "_go_json", lambda *_: {"GoMod": "go.mod", **said})
    return said


def test_requirements_and_replacements_are_repeated(module):
    module["Require"] += [{"Path": "a.example/a", "Version": "v1.0.0"}]
    module["Replace"] += [
        {
            "Old": {"Path": "a.example/a"},
            "New": {"Path": "b.example/a", "Version": "v1.1.0"},
        },
        {"Old": {"Path": "a.example/b"}, "New": {"Path": "./b"}},
    ]
    module["Exclude"] += [{"Path": "a.example/c", "Version": "v0.1.0"}]
    program = GoProgram("it", "x.example/it", "v1.2.3", "x.example/it/cmd/it")
    assert main_module_text("go", program).splitlines() == [
        "module peers.invalid/build",
        "go 1.26",
        "require x.example/it v1.2.3",
        "require a.example/a v1.0.0",
        "replace a.example/a => b.example/a v1.1.0",
        "exclude a.example/c v0.1.0",
    ]


def test_kubernetes_own_modules_are_those_that_were_published(module):
    """In its repository they are folders of version 0.0.0."""
    module["Require"] += [
        {"Path": "k8s.io/api", "Version": "v0.0.0"},
        {"Path": "k8s.io/utils", "Version": "v0.0.0-20260108192941-914a6e750570"},
    ]
    module["Replace"] += [{"Old": {"Path": "k8s.io/api"}, "New": {"Path": "./staging/api"}}]
    program = GoProgram("kubectl", "k8s.io/kubernetes", "v1.36.3")
    assert main_module_text("go", program).splitlines()[2:] == [
        "require k8s.io/kubernetes v1.36.3",
        "require k8s.io/api v0.36.3",
        "require k8s.io/utils v0.0.0-20260108192941-914a6e750570",
        "replace k8s.io/api => k8s.io/api v0.36.3",
    ]


def test_a_changed_source_is_another_program(tmp_path, monkeypatch):
    """And a version is a folder of its own, whatever the module calls its major version."""
    monkeypatch.setenv("THANOSTACK_PEER_CACHE", "/cache")
    program = GoProgram("it", "x.example/it/v3", "v3.1.0", source=tmp_path)
    (tmp_path / "main.go").write_text("package main")
    first = program.path
    (tmp_path / "main.go").write_text("package main\n")
    assert str(first.parent) == "/cache/it-v3.1.0"
    assert program.path != first
