"""The house: folders import only what stands below them, in no circle, in modules of one screenful of ideas."""

import ast
import graphlib
from pathlib import Path

import clsinterp

# From the door down; each may import from itself and from what stands after it. CONTRIBUTING.md says what each is for.
ORDER = [
    "__init__",
    "__main__",
    "cli",
    "commands",
    "studies",
    "bench",
    "runs",
    "explore",
    "checks",
    "views",
    "sweeps",
    "vision_model",
    "hooks",
    "console",
    "parse",
    "helptext",
    "remote",
    "probing",
    "models",
    "figures",
    "data",
    "interventions",
    "signals",
    "files",
    "shapes",
    "errors",
]
LONGEST = 300


def imports(root: Path) -> dict[str, set[str]]:
    """Module -> modules of the package it imports, wherever in the file: in functions and for type checkers too."""
    package = root.name
    names = {p: ".".join(p.relative_to(root.parent).with_suffix("").parts) for p in root.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): p for p, name in names.items()}
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        asked = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                asked += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                asked += [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                asked.append(f"{package}.")  # relative: no folder could be told from it
        inside = [name for name in asked if name.split(".")[0] == package]
        found[module] = {name if name in modules else name.rpartition(".")[0] or package for name in inside} - {module}
    return found


def faults(root: Path, order: list[str]) -> list[str]:
    """What breaks the house rules, a line each."""
    graph = imports(root)
    place = {name: i for i, name in enumerate(order)}

    def floor(module: str) -> str:
        return module.partition(".")[2].split(".")[0] or "__init__"

    found = [f"{m}: {floor(m)} has no place in the order" for m in graph if floor(m) not in place]
    if found:
        return found
    found += [f"{m} imports {n}, above it" for m, ns in graph.items() for n in ns if place[floor(n)] < place[floor(m)]]
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        found.append(f"circle: {' -> '.join(error.args[1])}")
    lengths = {p.relative_to(root): len(p.read_text().splitlines()) for p in root.rglob("*.py")}
    return found + [f"{p} has {n} lines" for p, n in lengths.items() if n > LONGEST]


def test_imports_run_down_without_circles_in_short_modules():
    assert faults(Path(clsinterp.__file__).parent, ORDER) == []


def test_the_rules_catch_what_they_forbid(tmp_path):
    root = tmp_path / "house"
    for name, text in {
        "roof/__init__": "", "roof/tiles": "from house.cellar.wine import red", "cellar/__init__": "",
        "cellar/wine": "red = 1", "__init__": "",
    }.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.py").write_text(text)
    order = ["__init__", "roof", "cellar"]
    assert faults(root, order) == []
    (root / "cellar/wine.py").write_text("def f():\n    from house.roof import tiles\nred = 1")
    up, circle = faults(root, order)
    assert up == "house.cellar.wine imports house.roof.tiles, above it"
    assert circle.startswith("circle: ")
    (root / "cellar/wine.py").write_text("if TYPE_CHECKING:\n    import house.roof.tiles\n" + "\n" * LONGEST)
    assert len(faults(root, order)) == 3
    (root / "attic.py").write_text("")
    assert faults(root, order) == ["house.attic: attic has no place in the order"]
