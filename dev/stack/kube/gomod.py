"""Write go.mod and go.sum beside this file for another Kubernetes version: ``python dev/stack/kube/gomod.py v1.37.2``.

k8s.io/kubernetes replaces its staging modules by folders of its own repository, which a module proxy does not have;
here each is replaced by its published twin (v1.37.2 has v0.37.2). Both files are committed, so that a build resolves
nothing. Needs ``go`` on PATH.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ETCD = "v3.7.0"
GO = "1.26.0"
FOLDER = Path(__file__).parent


def main(version: str) -> None:
    """Write both files for one version of Kubernetes, such as ``v1.37.2``."""
    asked = ["go", "mod", "download", "-json", f"k8s.io/kubernetes@{version}"]
    upstream = Path(json.loads(subprocess.check_output(asked, cwd="/"))["GoMod"]).read_text()
    (FOLDER / "go.mod").write_text(go_mod(upstream, version=version))
    (FOLDER / "go.sum").unlink(missing_ok=True)
    subprocess.run(["go", "mod", "tidy"], cwd=FOLDER, check=True)


def go_mod(upstream: str, *, version: str) -> str:
    """The text of go.mod, before it is tidied.

    Args:
        upstream: go.mod of k8s.io/kubernetes.
        version: Its version.
    """
    staging = re.findall(r"^\s+(\S+) => \./staging", upstream, re.MULTILINE)
    wanted = re.findall(r"^\s+(\S+) (v\S+)(?: // indirect)?$", upstream, re.MULTILINE)
    kept = [
        f"\t{name} {at}" for name, at in wanted if name not in staging and not name.startswith("go.etcd.io/etcd/server")
    ]
    twins = [f"\t{name} => {name} v0{version[2:]}" for name in staging]
    own = (
        f"module kube\n\ngo {GO}\n\nrequire k8s.io/kubernetes {version}\n\nrequire go.etcd.io/etcd/server/v3 {ETCD}\n\n"
    )
    return own + "\n".join(["require (", *kept, ")\n", "replace (", *twins, ")"]) + "\n"


if __name__ == "__main__":
    main(sys.argv[1])
