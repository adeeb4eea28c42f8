"""The programs that a cluster is made of, and where each comes from.

    python tests/e2e/cluster/programs.py           # build what is missing, print where each is

Built with nothing compiled before they take about twenty minutes of CPU; then they are found.
"""

from __future__ import annotations

from pathlib import Path

from thanostack.testing.go_programs import GoProgram, build, module_folder

_SOURCES = Path(__file__).parent / "go"
_KUBERNETES = "v1.36.3"
_CONTAINERD = "v2.1.4"
_HELM = "v3.22.0"
_PROMETHEUS_OPERATOR = "v0.85.0"
_MINOR = _KUBERNETES.split(".")[1]


def _kubernetes(name: str) -> GoProgram:
    # Unstamped, a program says v0.0.0-master+$Format:%H$, which kubectl and helm cannot read.
    stamp = "k8s.io/component-base/version."
    return GoProgram(
        name,
        "k8s.io/kubernetes",
        _KUBERNETES,
        f"k8s.io/kubernetes/cmd/{name}",
        symbols=(
            (f"{stamp}gitVersion", _KUBERNETES),
            (f"{stamp}gitMajor", "1"),
            (f"{stamp}gitMinor", _MINOR),
            (f"{stamp}gitTreeState", "clean"),
        ),
    )


def _containerd(name: str) -> GoProgram:
    module = "github.com/containerd/containerd/v2"
    return GoProgram(
        name,
        module,
        _CONTAINERD,
        f"{module}/cmd/{name}",
        symbols=((f"{module}/version.Version", _CONTAINERD),),
    )


API_SERVER = (
    GoProgram("etcd", "go.etcd.io/etcd/server/v3", "v3.7.3", "go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubectl"),
)
"""What an API server without a node is made of."""

NODE = (
    GoProgram("pause", "golang.org/x/sys", "v0.49.0", source=_SOURCES / "pause"),
    _containerd("containerd"),
    _containerd("containerd-shim-runc-v2"),
    _containerd("ctr"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    GoProgram("coredns", "github.com/coredns/coredns", "v1.12.4", source=_SOURCES / "coredns"),
    GoProgram(
        "local-provisioner",
        "sigs.k8s.io/sig-storage-lib-external-provisioner/v13",
        "v13.0.0",
        source=_SOURCES / "provisioner",
    ),
)
"""What a node adds."""

HELM = GoProgram(
    "helm",
    "helm.sh/helm/v3",
    _HELM,
    "helm.sh/helm/v3/cmd/helm",
    symbols=(
        ("helm.sh/helm/v3/internal/version.version", _HELM),
        # What `helm template` and `helm lint` take for the cluster's version.
        ("helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor", "1"),
        ("helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor", _MINOR),
        ("helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor", "1"),
        ("helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor", _MINOR),
    ),
)

KIND_CONFIG = GoProgram(
    "kind-config",
    "sigs.k8s.io/kind",
    "v0.33.0",
    source=_SOURCES / "kind-config",
    # What reads a configuration is internal to kind: only modules below this name may import it.
    main_module="sigs.k8s.io/kind/pkg/configuration-check",
)
"""What kind makes of a configuration."""


def build_all(programs: tuple[GoProgram, ...]) -> dict[str, Path]:
    """Build what is missing; return where each program is, by name."""
    return {program.name: build(program) for program in programs}


def monitoring_definitions() -> list[Path]:
    """Return the files that define ServiceMonitors and PrometheusRules, of prometheus-operator."""
    module = "github.com/prometheus-operator/prometheus-operator"
    folder = module_folder(module, _PROMETHEUS_OPERATOR) / "example" / "prometheus-operator-crd"
    names = ("servicemonitors", "prometheusrules")
    return [folder / f"monitoring.coreos.com_{name}.yaml" for name in names]


def main() -> None:
    """Build every missing program and print where each is, and the definitions."""
    for path in (*build_all((*API_SERVER, *NODE, HELM)).values(), *monitoring_definitions()):
        print(path)


if __name__ == "__main__":
    main()
