"""The rules of the house, each shown to fail on a planted violation before it is trusted."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "seeding": set(),
    "sparse_rows": set(),
    "config": set(),
    "atomic_write": set(),
    "sealed_files": set(),
    "differences": set(),
    "ground_truth": set(),
    "activations": {"ground_truth"},
    "saes": set(),
    "training": {"activations", "saes"},
    "checkpoint": {"saes", "training"},
    "attach": {"activations", "checkpoint", "saes"},
    "interop": {"saes", "checkpoint"},
    "metrics": {"ground_truth", "activations", "saes"},
    "analysis": {"activations", "saes", "metrics"},
    "loggers": set(),
    "run_folder": {"checkpoint", "training", "loggers"},
    "recipe": set(),
    "origin": {"activations", "checkpoint", "recipe", "run_folder"},
    "report": {"metrics", "analysis", "ground_truth", "activations", "saes", "checkpoint", "run_folder", "origin"},
    "summary": {"report"},
    "plan": {"activations", "saes", "training", "checkpoint", "metrics", "recipe", "run_folder"},
    "cache_command": {"activations", "recipe", "run_folder"},
    "evaluate_command": {"activations", "checkpoint", "loggers", "metrics", "origin", "recipe", "report", "summary"},
    "dashboard_command": {"activations", "analysis", "checkpoint", "loggers", "origin", "recipe", "report"},
    "compare_command": {"activations", "checkpoint", "metrics", "recipe", "run_folder", "saes"},
    "cli": {
        "recipe",
        "run_folder",
        "loggers",
        "training",
        "checkpoint",
        "saes",
        "report",
        "summary",
        "plan",
        "cache_command",
        "compare_command",
        "dashboard_command",
        "evaluate_command",
    },
}
"""Which parts of the package each part may import; the four foundation files on top are open to all."""
FOUNDATION = {"seeding", "sparse_rows", "config", "atomic_write", "sealed_files", "differences"}
TALKS_TO_THE_USER = {
    "loggers.py",
    "cli.py",
    "cache_command.py",
    "dashboard_command.py",
    "evaluate_command.py",
    "summary.py",
}


def part_of(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported_modules(path: Path, package: Path) -> list[str]:
    """Dotted names of all modules a file imports, relative imports resolved."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            here = path.relative_to(package.parent).with_suffix("").parts[: -node.level]
            names += [".".join([*here, *(node.module or "").split(".")]) for _ in node.names]
    return names


def import_violations(package: Path) -> list[str]:
    found = []
    for path in sorted(package.rglob("*.py")):
        part = part_of(path, package)
        if part == "__init__":
            continue
        allowed = MAY_IMPORT.get(part, set()) | FOUNDATION | {part}
        for name in imported_modules(path, package):
            pieces = name.split(".")
            if pieces[0] == "recipes" or (pieces[0] == package.name and len(pieces) > 1 and pieces[1] not in allowed):
                found.append(f"{path.relative_to(package)} imports {name}")
    return found


def loud_calls(package: Path) -> list[str]:
    """print and wandb outside the files whose job is to talk to the user."""
    found = []
    for path in sorted(package.rglob("*.py")):
        if path.name in TALKS_TO_THE_USER:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.append(f"{path.relative_to(package)}:{node.lineno} print")
        for name in imported_modules(path, package):
            if name.split(".")[0] in ("wandb", "tqdm"):
                found.append(f"{path.relative_to(package)} imports {name}")
    return found


def transformer_lens_importers(package: Path) -> list[str]:
    return [
        str(path.relative_to(package))
        for path in sorted(package.rglob("*.py"))
        if any(name.split(".")[0] == "transformer_lens" for name in imported_modules(path, package))
    ]


def map_differences(readme: str, package: Path) -> list[str]:
    """Files that the README's map lacks, and files it names that do not exist."""
    block = re.search(r"<!-- map -->\n```\n(.*?)```", readme, re.S)
    if block is None:
        return ["the README has no map"]
    listed: set[str] = set()
    folder = ""
    for line in block.group(1).splitlines():
        match = re.match(r"(\s*)(\S+)", line)
        if match is None or len(match.group(1)) > 4:
            continue
        name = match.group(2)
        if name.endswith("/") and len(match.group(1)) == 2:
            folder = name
        elif name.endswith(".py") and len(match.group(1)) in (2, 4):
            listed.add(name if len(match.group(1)) == 2 else folder + name)
    actual = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if path.name != "__init__.py"}
    return [f"not in the map: {name}" for name in sorted(actual - listed)] + [
        f"in the map, but not there: {name}" for name in sorted(listed - actual)
    ]


def missing_exports(package: Path, folder: str) -> list[str]:
    """Public classes (or modules, for saes) of a folder that its __init__ does not export."""
    init = (package / folder / "__init__.py").read_text(encoding="utf-8")
    exported_from = set(re.findall(r"from \.(\w+) import", init))
    modules = {path.stem for path in (package / folder).glob("*.py")} - {"__init__"}
    internal = {
        module
        for module in modules
        if not any(
            isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") in CONTRACTS[folder] for base in node.bases)
            for node in ast.parse((package / folder / f"{module}.py").read_text(encoding="utf-8")).body
        )
    }
    return sorted(modules - internal - exported_from)


CONTRACTS = {
    "saes": {"AbstractSAE"},
    "metrics": {"Metric"},
    "activations": {"ActivationSource", "KnownFeatures", "SplicingSource"},
}
PACKAGE = ROOT / "sae_toolkit"


def planted(tmp_path: Path, file: str, code: str) -> Path:
    package = tmp_path / "sae_toolkit"
    (package / file).parent.mkdir(parents=True)
    (package / file).write_text(code)
    return package


def test_imports_follow_the_map() -> None:
    assert import_violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("saes/bad.py", "from sae_toolkit.training.train import train"),
        ("saes/bad.py", "from ..metrics import recovery"),
        ("ground_truth/bad.py", "def f():\n    import sae_toolkit.activations.source"),
        ("metrics/bad.py", "from recipes import toy_superposition"),
        ("new_part/bad.py", "from sae_toolkit import saes"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, code: str) -> None:
    assert len(import_violations(planted(tmp_path, file, code))) == 1


def test_the_library_is_silent() -> None:
    assert loud_calls(PACKAGE) == []


@pytest.mark.parametrize("code", ["print('x')", "import wandb", "from tqdm import tqdm", "def f():\n    print(1)"])
def test_a_loud_file_is_found(tmp_path: Path, code: str) -> None:
    assert len(loud_calls(planted(tmp_path, "saes/bad.py", code))) == 1


def test_only_one_file_may_import_transformer_lens() -> None:
    assert transformer_lens_importers(PACKAGE) in ([], ["activations/transformer.py"])


def test_a_second_import_of_transformer_lens_is_found(tmp_path: Path) -> None:
    package = planted(tmp_path, "metrics/bad.py", "def f():\n    from transformer_lens import x")
    assert transformer_lens_importers(package) == ["metrics/bad.py"]


def test_the_map_in_the_readme_is_true() -> None:
    assert map_differences((ROOT / "README.md").read_text(encoding="utf-8"), PACKAGE) == []


def test_a_wrong_map_is_found(tmp_path: Path) -> None:
    package = planted(tmp_path, "saes/topk.py", "")
    readme = "<!-- map -->\n```\nsae_toolkit/\n  saes/   the SAEs\n    relu.py   one\n```\n"
    assert map_differences(readme, package) == [
        "not in the map: saes/topk.py",
        "in the map, but not there: saes/relu.py",
    ]


@pytest.mark.parametrize("folder", sorted(CONTRACTS))
def test_every_component_is_exported(folder: str) -> None:
    assert missing_exports(PACKAGE, folder) == []


def test_a_missing_export_is_found(tmp_path: Path) -> None:
    package = planted(tmp_path, "saes/new.py", "class NewSAE(AbstractSAE): ...")
    (package / "saes/__init__.py").write_text("")
    assert missing_exports(package, "saes") == ["new"]


def test_recipes_are_short_wiring() -> None:
    recipes = [path for path in (ROOT / "recipes").glob("*.py") if path.stem != "__init__"]
    assert len(recipes) >= 5
    assert {path.name: n for path in recipes if (n := wiring_lines(path.read_text(encoding="utf-8"))) > 60} == {}


def wiring_lines(code: str) -> int:
    """Lines of code without docstrings, comments, blank lines, imports and the expected numbers."""
    tree = ast.parse(code)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        expected = isinstance(node, ast.Assign) and "EXPECTED" in ast.unparse(node.targets[0])
        if text or expected or isinstance(node, ast.Import | ast.ImportFrom):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(code.splitlines(), 1)
    return sum(1 for i, line in lines if line.strip() and not line.strip().startswith("#") and i not in skipped)


def test_wiring_lines_are_counted() -> None:
    code = '"""Doc\nstring."""\nimport os\n\n#\nx = 1\n\ndef f():\n    """D."""\n    return x\n\nEXPECTED = (\n 1,\n)\n'
    assert wiring_lines(code) == 3
