"""A cluster to work with by hand; FOLDER keeps all of its state.

python -m cluster up FOLDER          start it and leave it running, print its kubeconfig
python -m cluster images FOLDER      build the project's images and put them where pods find them
python -m cluster down FOLDER        stop it; the next `up` finds objects and volumes again
python -m cluster wipe FOLDER        stop it and delete everything
"""

from __future__ import annotations

import sys
from pathlib import Path

from cluster.cluster import Cluster
from cluster.launch import ClusterError, stop
from cluster.project import add_project_images


def main(command: str, folder: Path) -> None:
    """Do what the command line says."""
    if command in ("down", "wipe"):
        stop(folder, wipe=command == "wipe")
        return
    cluster = Cluster.found(folder)
    if command == "up":
        cluster = cluster or Cluster.start(folder, is_left_running=True)
        print(f"export KUBECONFIG={cluster.kubeconfig}")
    elif command == "images" and cluster:
        add_project_images(cluster)
    else:
        raise ClusterError(f"no cluster runs in {folder}" if not cluster else __doc__)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
