"""check-config: every flag of an existing command line gets its verdict, and the code sums up."""

import io
import json
from pathlib import Path

import pytest

from thanostack.runtime.cli import NOT_THERE_YET, main, settings_of
from thanostack.runtime.settings import State

ROOT = Path(__file__).parents[3]
LABEL = '--label=replica="$(POD_NAME)"'
MANIFEST = """
apiVersion: v1
kind: List
items:
- kind: StatefulSet
  metadata: {name: receive}
  spec:
    template:
      spec:
        initContainers: [{name: wait, image: busybox, command: [sleep, "1"]}]
        containers:
        - name: receive
          image: quay.io/thanos/thanos:v0.42.4
          env:
          - {name: RETENTION, value: 4d}
          - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
          args:
          - receive
          - --tsdb.retention=$(RETENTION)
          - '--label=replica="$(POD_NAME)"'
          - --tsdb.max-retention-bytes=$(BYTES)
          - --receive.tenant-header=$$x
        - {name: reloader, image: reload, args: [--watch]}
---
kind: Deployment
metadata: {name: query}
spec:
  template:
    spec:
      containers:
      - name: query
        command: [/bin/sh, -c]
        args: ["exec /bin/thanos --log.level=info query --endpoint=${STORE} && true"]
      - {name: store, command: [thanos], args: [store, --data-dir=/x]}
"""


@pytest.fixture
def check(capsys, monkeypatch):
    """Return a function that gives (code, reports) of arguments and standard input."""

    def run(*arguments, stdin=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        code = main(["check-config", "--output", "json", *arguments])
        captured = capsys.readouterr()
        return code, json.loads(captured.out)["commands"] if captured.out else captured.err

    return run


def verdicts(report):
    return {finding["flag"]: finding["verdict"] for finding in report["findings"]}


def notes(report):
    return {finding["flag"]: finding["note"] for finding in report["findings"]}


def test_verdicts(check):
    """Same, no effect with the reason, refused with the hint, unknown, invalid."""
    code, (report,) = check(
        "--", "receive", LABEL, "--tsdb.path", "/d", "--no-tsdb.wal-compression",
        "--receive.capnproto-address=:1", "--objstore.config=type: S3", "--tsdb.pth=x", "--nope",
        "y", "--tsdb.retention=3x", "stray",
    )  # fmt: skip
    assert code == 1
    assert verdicts(report) == {
        "--label": "same",
        "--tsdb.path": "same",
        "--tsdb.wal-compression": "same",
        "--receive.capnproto-address": "no effect",
        "--objstore.config": "refused",
        "--tsdb.pth": "unknown",
        "--nope": "unknown",
        "--tsdb.retention": "invalid",
        "stray": "invalid",
    }
    assert "did you mean --tsdb.path?" in notes(report)["--tsdb.pth"]
    assert "blocks stay in the data folder" in notes(report)["--objstore.config"]
    assert "Cap'n Proto is not offered" in notes(report)["--receive.capnproto-address"]
    assert all(finding["value"] != "type: S3" for finding in report["findings"])


def test_a_command_that_would_start(check):
    """Code 0; a refused flag that repeats its default is no obstacle."""
    flags = [LABEL, "--tsdb.max-exemplars=0", "--hash-func=SHA256"]
    code, (report,) = check("--", "thanos", "receive", *flags)
    assert (code, report["ok"]) == (0, True)
    assert verdicts(report)["--tsdb.max-exemplars"] == "same"


def test_flags_that_contradict_each_other(check):
    """They are judged together, as the start would judge them."""
    code, (report,) = check("--", "receive", "--tsdb.path=x")
    assert code == 1
    assert "no external labels configured" in notes(report)[""]
    code, (report,) = check("--", "receive", LABEL, "--grpc-server-tls-cert=a")
    assert "both --grpc-server-tls-cert and" in notes(report)[""]
    code, (report,) = check("--", "receive", LABEL, "--tsdb.path=a", "--tsdb.path=b")
    assert "cannot be repeated" in notes(report)["--tsdb.path"]


@pytest.mark.parametrize("name", sorted(NOT_THERE_YET))
def test_commands_that_are_not_there(check, name):
    """They are said to be missing, whatever their flags."""
    code, (report,) = check("--", name, "--whatever=1")
    assert (code, report["command"]) == (1, name)
    assert "not part of this version yet" in report["error"]


def test_other_commands(check):
    """Neither Thanos's nor ours."""
    assert "no such command" in check("--", "recieve")[1][0]["error"]
    assert "no command is named" in check("--", "--log.level=info")[1][0]["error"]


def test_a_manifest(check, tmp_path):
    """Each Thanos container; references are filled in from env, or not judged."""
    path = tmp_path / "all.yaml"
    path.write_text(MANIFEST)
    code, (receive, query, store) = check("-f", str(path))
    assert code == 1
    assert (receive["ok"], query["ok"], store["ok"]) == (True, True, False)
    assert receive["where"].endswith("StatefulSet/receive: container receive")
    values = {finding["flag"]: finding["value"] for finding in receive["findings"]}
    assert values["--tsdb.retention"] == "4d"
    assert values["--receive.tenant-header"] == "$x"
    assert "only where it runs" in notes(receive)["--tsdb.max-retention-bytes"]
    assert verdicts(query) == {"--log.level": "same", "--endpoint": "same"}
    assert check(stdin=MANIFEST)[0] == 1


def test_shell_text(check, tmp_path):
    """Joined lines, comments, quotes, several commands."""
    path = tmp_path / "run.sh"
    path.write_text(
        "#!/bin/sh\n# thanos receive --tsdb.retention=3x\nmkdir -p x; /bin/thanos receive \\\n"
        "  --label 'a=\"b\"' \\\n  --tsdb.path=$DATA --tsdb.retention=$(RETENTION) &\n"
        "thanos query --endpoint='a:1' > log\n"
    )
    code, (receive, query) = check("--file", str(path))
    assert code == 0
    assert set(verdicts(receive)) == {"--label", "--tsdb.path", "--tsdb.retention"}
    assert verdicts(query)["--endpoint"] == "same"
    assert check("--", "thanos receive --label='a=\"b\"' --tsdb.retention=3d")[0] == 0


@pytest.mark.parametrize(
    "line",
    [
        "docker run -d quay.io/thanos/thanos:v0.42.4 query --endpoint=a:1",
        "docker run --name thanos -p 1:1 thanos@sha256:ab query --endpoint=a:1",
        "ExecStart=/usr/bin/thanos --log.level=debug query --endpoint=a:1",
        "query --endpoint=a:1 --query.active-query-path=/var/thanos",
    ],
)
def test_a_program_inside_of_another_command_line(check, line):
    """The image of a `docker run` is the program's name, a container's name is none."""
    code, (report,) = check(stdin=line)
    assert (code, report["command"]) == (0, "query")
    assert verdicts(report)["--endpoint"] == "same"


def test_services_of_a_compose_file(check):
    """A list or a line, with an entrypoint or without; others' services are none of ours."""
    code, reports = check(
        stdin="""
services:
  receive:
    image: quay.io/thanos/thanos:v0.42.4
    command: [receive, '--label=replica="0"', --tsdb.path=$DATA]
  query:
    image: mirror.example.com/t:1
    entrypoint: /bin/thanos
    command: query --endpoint='receive:10901' --query.nothing
  grafana: {image: grafana/grafana, command: null}
  sleep: {image: busybox, command: 5}
"""
    )
    assert code == 1
    assert ["standard input: container receive", "standard input: container query"] == [
        report["where"] for report in reports
    ]
    assert {"--label": "same", "--tsdb.path": "same"} == verdicts(reports[0])
    assert {"--endpoint": "same", "--query.nothing": "unknown"} == verdicts(reports[1])


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        (["-f", "/nowhere"], "", "cannot read /nowhere"),
        ([], "kind: Pod\nspec: {containers: [{image: x}]}", "no Thanos command line found"),
        ([], "a: {{ .Values.x }}\n  b", "render templates first"),
        (
            [],
            "services: {a: {image: thanos, command: receive --label=x='}}",
            "standard input: service a: command: No closing quotation: receive --label=x='",
        ),
        (["--"], "", "nothing after --"),
        (["--colour=red"], "", "unrecognized arguments"),
        (["--output=xml"], "", "invalid choice"),
    ],
)
def test_what_cannot_be_checked(check, arguments, text, words):
    """One line, and code 1."""
    code, said = check(*arguments, stdin=text)
    assert code == 1
    assert words in said
    assert said.count("\n") == 1


def test_text_for_people(capsys):
    """What needs doing comes first; the last line is the sum."""
    assert main(["check-config", "--", "receive", LABEL, "--objstore.config=x"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "receive  (command line): 1 same, 1 refused"
    assert lines[1] == "  refused   --objstore.config=<secret>"
    assert lines[-1] == "1 command: 1 would not start"


@pytest.mark.parametrize("name", ["receive", "query"])
def test_every_upstream_flag_has_a_verdict(check, name):
    """The same as in docs/flags.md: both come from the settings classes."""
    upstream = (ROOT / "tests/data/flags" / f"thanos-{name}.txt").read_text().split()
    states = {flag.name: flag.state for flag in settings_of(name).flags().values()}
    switches = {
        flag.name
        for field, flag in settings_of(name).flags().items()
        if settings_of(name).is_boolean(field)
    }
    flags = [f"--{flag}" if flag in switches else f"--{flag}=$(X)" for flag in upstream]
    _, (report,) = check("--", name, *flags)
    found = verdicts(report)
    for flag in upstream:
        if states[flag] is State.REFUSED:
            assert found[f"--{flag}"] == "refused", flag
        elif states[flag] is State.WITHOUT_EFFECT:
            assert found[f"--{flag}"] in {"no effect", "invalid"}, flag
        else:
            assert found[f"--{flag}"] in {"same", "invalid"}, flag
