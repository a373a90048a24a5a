"""What the package promises about itself: its imports, its vectors file, its README."""

from __future__ import annotations

import ast
import re
from importlib.resources import files
from pathlib import Path

import publishers
from publishers import Settings, wire

FOLDER = Path(publishers.__file__).parent


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_imports() -> None:
    """Nothing imports the gateway, one module alone knows nats-py, and `wire` needs only orjson."""
    imports = {path.name: _imports(path) for path in FOLDER.glob("*.py")}
    assert [name for name, names in imports.items() if "gateway" in names] == []
    assert [name for name, names in imports.items() if "nats" in names] == ["link.py"]
    assert "publishers" not in imports["wire.py"]


def test_readme_names_every_setting() -> None:
    """The README's table holds every setting with its default."""
    readme = (files("publishers") / "README.md").read_text()
    table = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", readme, re.MULTILINE))
    for name, field in Settings.__dataclass_fields__.items():
        assert name in table, f"{name} is missing in README.md"
        shown = table[name].strip().strip("`")
        default: object = field.default
        if default is None:
            assert shown == "\N{EN DASH}"
        elif isinstance(default, int) and default >= 1024 and name.endswith("_bytes"):
            amount, unit = shown.split()
            assert int(amount) * {"KiB": 1024, "MiB": 1024**2}[unit] == default
        else:
            assert shown == str(default)


def test_readme_python_is_valid() -> None:
    """Every Python recipe of the README compiles, and uses only what the package exports."""
    readme = (files("publishers") / "README.md").read_text()
    recipes = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(recipes) >= 4
    for recipe in recipes:
        for node in ast.walk(ast.parse(recipe)):
            if isinstance(node, ast.ImportFrom) and node.module == "publishers":
                assert {alias.name for alias in node.names} <= {*publishers.__all__, "wire"}


def test_readme_id_examples() -> None:
    """The README's table of ids is what the code does."""
    readme = (files("publishers") / "README.md").read_text()
    examples = re.findall(r"^\| `(.+?)` \| `(.+?)` \| `(.+?)` \|$", readme, re.MULTILINE)
    assert len(examples) >= 5
    for id, token, subject in examples:
        assert wire.encode_id(id) == token
        assert wire.parse_subject(subject).id == id
