"""The house stays in order: layout, import sets, model size, no hosts of registries."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".proto", ".json", ".sh", ""}


def tracked() -> list[Path]:
    out = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    ).stdout
    return [ROOT / line for line in out.splitlines() if (ROOT / line).is_file()]


def test_operator_folder_is_no_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_standard_library_operator_is_not_shadowed() -> None:
    code = "import operator; assert operator.add(1, 2) == 3; print(operator.__file__)"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert out.returncode == 0, out.stderr
    assert str(ROOT) not in out.stdout


# What each part's process may never load, found by importing its entry point in a fresh interpreter.
FORBIDDEN = {
    "gesso.cli.main": (
        "torch",
        "diffusers",
        "scipy",
        "gesso_operator",
        "gesso_router",
        "gesso_worker",
    ),
    "gesso_operator.local.supervisor": (
        "torch",
        "diffusers",
        "transformers",
        "open_clip",
        "fastapi",
    ),
    "gesso_router.server": ("diffusers", "faiss", "scipy", "gesso_operator", "gesso_worker"),
    "gesso_worker.server": (
        "open_clip",
        "fastapi",
        "scipy.optimize",
        "gesso_operator",
        "gesso_router",
    ),
    "gesso_operator.planning": ("asyncio", "grpc", "kubernetes", "prometheus_client"),
    "gesso_router.routing": ("asyncio", "grpc", "torch", "prometheus_client", "fastapi"),
    "gesso_worker.cache.policy": ("asyncio", "grpc", "torch", "faiss", "prometheus_client"),
}


@pytest.mark.parametrize("module", FORBIDDEN)
def test_import_set(module: str) -> None:
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert out.returncode == 0, out.stderr
    loaded = set(out.stdout.split())
    assert not loaded & set(FORBIDDEN[module])


def test_shipped_models_stay_under_20_mb_and_the_turbo_under_10() -> None:
    models = ROOT / "worker" / "gesso_worker" / "models" / "builtin"
    sizes = {p: p.stat().st_size for p in models.rglob("*") if p.is_file()}
    turbo = sum(size for p, size in sizes.items() if "tiny-sdxl-turbo" in p.parts)
    assert 0 < turbo <= 10e6
    assert 0 < sum(sizes.values()) - turbo <= 20e6


def test_no_registry_host_is_named() -> None:
    hosts = re.compile(
        r"https?://[\w.-]*(pypi|pythonhosted|proxy\.golang|registry\.npmjs|deb\.debian|crates\.io|maven)"
    )
    named = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix in TEXT_SUFFIXES
        and path != Path(__file__)
        and hosts.search(path.read_text())
    ]
    assert named == []
