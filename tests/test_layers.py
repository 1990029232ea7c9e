"""Imports run downwards and in no circle, and the runtime is light; `benchmarks/house.py` reads them."""

import importlib.util
import sys
from itertools import accumulate
from pathlib import Path
from types import ModuleType

import pytest

# Arrows that are still to be turned; nothing may be added.
KNOWN_ARROWS = {("hifispeech.train.validate", "hifispeech.evaluate.metrics")}
NEEDS_TORCH = "hifispeech.infer.batch."  # PyTorch code, which the runtime imports in functions only


@pytest.fixture(scope="module")
def house(repo_dir: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", repo_dir / "benchmarks" / "house.py")
    assert spec is not None and spec.loader is not None
    sys.modules["house"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def imports(house: ModuleType, repo_dir: Path) -> list:
    source = repo_dir / "src"
    return list(house.imports(house.read_modules(source), house.packages_of(source)))


def test_imports_run_downwards(house: ModuleType, imports: list) -> None:
    assert set(house.upward(imports)) == KNOWN_ARROWS


def test_no_circles(house: ModuleType, imports: list) -> None:
    assert house.circles(imports) == []


def test_every_part_has_a_layer(house: ModuleType, imports: list) -> None:
    parts = {house.part_of(one.importer) for one in imports}
    assert parts <= {part for layer in house.LAYERS for part in layer}


def test_runtime_loads_no_heavy_library(house: ModuleType, imports: list) -> None:
    """Directly or through another module; loading a module loads its packages, too."""
    graph = house.graph_of(one for one in imports if one.at_import)
    graph = {
        name: {part for one in (name, *to) for part in accumulate(one.split("."), "{}.{}".format)}
        for name, to in graph.items()
    }
    for name in graph:
        if house.part_of(name) in house.RUNTIME and not name.startswith(NEEDS_TORCH):
            assert house.reachable(graph, name).isdisjoint(house.HEAVY), name
