"""Makes what is derived of the chart: `python charts/make_chart.py` writes it, `--check` tells what is stale.

From the typed values: `values.yaml`, `values.schema.json`, `docs/reference/chart-values.md`. From `crds/`,
`manifests/dashboards` and `manifests/rules`: the copies in the chart. From the chart, with helm:
`manifests/install.yaml`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from find_helm import find_helm
from install_manifest import INSTALL, install_manifest
from values_files import reference, schema, values_yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "gesso"
CRD = ROOT / "crds" / "gesso.dev_diffusionservices.yaml"
NO_HELM = (
    "manifests/install.yaml: not looked at, for there is no helm: put one on the PATH, name it by HELM, or "
    "run make cluster-tools"
)


def crd_template(crd: str) -> str:
    """The CRD as a template: only where asked for, kept on uninstalling, else letter by letter."""
    head, found, tail = crd.replace("{{", '{{ "{{" }}').partition("\nmetadata:\n")
    if not found or "\n  annotations:" in tail.partition("\nspec:")[0]:
        raise ValueError(f"{CRD}: its metadata is not as expected: a name, and no annotations")
    # The comment on top tells to edit another file.
    head = head.partition("\n")[2] if head.startswith("#") else head
    annotations = (
        '  labels:\n    {{- include "gesso.labels" . | nindent 4 }}\n'
        "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n"
    )
    note = "{{- /* Made by `make chart` from crds/; not to be edited. */ -}}\n"
    return f"{note}{{{{- if .Values.crds.install }}}}\n{head}{found}{annotations}{tail}{{{{- end }}}}\n"


def derived() -> dict[Path, str]:
    """All derived files but the one that needs helm: their text by path."""
    files = {
        CHART / "values.yaml": values_yaml(),
        CHART / "values.schema.json": schema(),
        CHART / "templates" / "crd.yaml": crd_template(CRD.read_text()),
        ROOT / "docs" / "reference" / "chart-values.md": reference(),
    }
    for folder, pattern in (("dashboards", "*.json"), ("rules", "*.yaml")):
        for source in sorted((ROOT / "manifests" / folder).glob(pattern)):
            files[CHART / "files" / folder / source.name] = source.read_text()
    return files


def left_over(files: dict[Path, str]) -> list[Path]:
    """Copies in the chart whose source is gone."""
    return [p for p in sorted((CHART / "files").rglob("*")) if p.is_file() and p not in files]


def stale(files: dict[Path, str]) -> list[Path]:
    """Those that are missing or differ from what they should be."""
    return [p for p, text in files.items() if not p.is_file() or p.read_text() != text]


def main() -> int:
    """Writes, or checks. Exit codes: 0 all is current, 1 something is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="Write nothing; 1 if anything is stale."
    )
    check = parser.parse_args().check
    try:
        return build(check)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1


def build(check: bool) -> int:
    """Writes, or only checks, and prints what is stale. Raises ValueError on a chart that helm refuses."""
    files = derived()
    wrong = stale(files) + left_over(files)
    if not check:
        for path in left_over(files):
            path.unlink()
        for path in stale(files):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
    helm = find_helm()
    if helm is None:
        print(NO_HELM)
    elif not (check and wrong):
        files = {INSTALL: install_manifest(helm, CHART)}
        wrong += stale(files)
        if not check:
            INSTALL.write_text(files[INSTALL])
    for path in wrong:
        print(f"{path.relative_to(ROOT)}: {'stale: run make chart' if check else 'written'}")
    return 1 if check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
