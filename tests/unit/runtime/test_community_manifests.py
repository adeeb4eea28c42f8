"""check-config on what the community's manifests say: a verdict on every flag, and what to do."""

import json
from pathlib import Path

import pytest

from thanostack.runtime.cli import main

MANIFESTS = Path(__file__).parents[2] / "data/manifests"
BUCKET = "object storage is not offered yet: leave it out"
TRACING = "tracing is not offered yet: leave it out"
CAPNPROTO = "Cap'n Proto is not offered"
GOLDEN = {
    "kube-thanos.yaml": [
        ("Deployment/thanos-receive-router", 8, {}),
        ("StatefulSet/thanos-receive-ingestor-default", 11, {}),
        ("Deployment/thanos-query", 7, {}),
    ],
    "kube-thanos-all.yaml": [
        (
            "StatefulSet/thanos-receive",
            11,
            {"--objstore.config": ("refused", BUCKET), "--tracing.config": ("refused", TRACING)},
        ),
        (
            "StatefulSet/thanos-receive-default",
            11,
            {"--objstore.config": ("refused", BUCKET), "--tracing.config": ("refused", TRACING)},
        ),
        ("Deployment/thanos-query", 9, {"--tracing.config": ("refused", TRACING)}),
    ],
    "helm-charts.yaml": [
        ("Deployment/thanos-receive-router", 6, {}),
        ("StatefulSet/thanos-receive", 7, {"--objstore.config-file": ("refused", BUCKET)}),
    ],
    "bitnami.yaml": [
        ("Deployment/thanos-receive-distributor", 7, {}),
        (
            "StatefulSet/thanos-receive",
            12,
            {
                "--objstore.config": ("refused", BUCKET),
                "--receive.capnproto-address": ("no effect", CAPNPROTO),
            },
        ),
    ],
}
"""Of each container: how many flags are the same, and what the others are, with what is said."""


def test_every_manifest_is_judged():
    assert sorted(GOLDEN) == sorted(path.name for path in MANIFESTS.glob("*.yaml"))


@pytest.mark.parametrize("name", GOLDEN)
def test_verdicts(name, capsys):
    """Same, no effect, refused; and whether all would start."""
    code = main(["check-config", "--output", "json", "-f", str(MANIFESTS / name)])
    found = []
    for report in json.loads(capsys.readouterr().out)["commands"]:
        findings = report["findings"]
        others = {f["flag"]: (f["verdict"], f["note"]) for f in findings if f["verdict"] != "same"}
        found.append((report["where"].split(": ")[1], len(findings) - len(others), others))
    expected = GOLDEN[name]
    assert [(where, same) for where, same, _ in expected] == [(w, same) for w, same, _ in found]
    for (_, _, wanted), (_, _, got) in zip(expected, found, strict=True):
        assert {flag: verdict for flag, (verdict, _) in wanted.items()} == {
            flag: verdict for flag, (verdict, _) in got.items()
        }
        assert [
            flag for flag, (_, note) in wanted.items() if not got[flag][1].startswith(note)
        ] == []
    is_refused = any(v == "refused" for _, _, flags in expected for v, _ in flags.values())
    assert code == int(is_refused)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--objstore.config=type: FILESYSTEM\nconfig: {directory: /b}", BUCKET),
        ("--tracing.config=type: JAEGER", TRACING),
    ],
)
def test_the_program_itself_says_the_same(flag, said, capsys):
    """It does not start, and names the flag."""
    assert main(["receive", '--label=replica="0"', flag]) != 0
    printed = capsys.readouterr().err
    assert said in printed
    assert flag.partition("=")[0] in printed
