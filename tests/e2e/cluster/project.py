"""The project's own images, and their names in tests and in the chart."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "thanostack"
EXAMPLE = ROOT / "docs" / "examples" / "thanosstack.yaml"
TAG = "e2e"
SERVICES_IMAGE = f"localhost/thanostack:{TAG}"
OPERATOR_IMAGE = f"localhost/thanostack-operator:{TAG}"
NEXT_VERSION = "0.1.1"
"""A second version to upgrade to; the same images."""


class TakesImages(Protocol):
    """A cluster."""

    def add_project_image(self, name: str, root: Path, dockerfile: str) -> None:
        """Build an image and put it where pods find it."""

    def tag_image(self, name: str, other: str) -> None:
        """Give an image that pods find another name too."""


def chart_version() -> str:
    """Return the version of the images that the chart and its operator name by themselves."""
    text = (CHART / "Chart.yaml").read_text(encoding="utf-8")
    return str(yaml.safe_load(text)["appVersion"])


def add_project_images(cluster: TakesImages) -> None:
    """Build every image of the project and put them where a cluster's pods find them."""
    cluster.add_project_image(SERVICES_IMAGE, ROOT, "services/Dockerfile")
    cluster.add_project_image(OPERATOR_IMAGE, ROOT, "operator/Dockerfile")


def tag_for_chart(cluster: TakesImages) -> None:
    """Give the images that pods find the names too that chart and operator use, and a next one."""
    for version in (chart_version(), NEXT_VERSION):
        cluster.tag_image(SERVICES_IMAGE, f"docker.io/thanostack/thanostack:{version}")
        cluster.tag_image(OPERATOR_IMAGE, f"docker.io/thanostack/thanostack-operator:{version}")
