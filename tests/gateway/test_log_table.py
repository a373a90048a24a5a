"""The table of log lines in gateway/README.md: what the code logs at info or above, by name and level."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.readme import README

GATEWAY = README.parent
LEVELS = {"info", "warning", "error"}
NOT_LOGGED = {"exception", "critical", "log", "msg"}
"""Other ways of loggers to write a line, which the code does not use: the table would not know of them."""

TROUBLE = "nats_trouble"
"""Who logs what the NATS connection calls trouble, under the name that comes along, as a warning."""

Names = Mapping[str, set[str]]
"""Levels by event name."""


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def texts(node: ast.expr) -> set[str]:
    """The texts that an expression can be: a literal, or a choice between some."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.IfExp):
        return texts(node.body) | texts(node.orelse)
    return set()


def named(argument: ast.expr, function: ast.AST) -> set[str]:
    """The names that the first argument of a call can be, where a variable of the function may stand for them."""
    if not isinstance(argument, ast.Name):
        return texts(argument)
    return {
        text
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id == argument.id
        for text in texts(node.value)
    }


def logged(path: Path) -> Names:
    """What a module logs. A name that cannot be read from it is an error."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for function in functions(ast.parse(path.read_text("utf-8"))):
        for call in ast.walk(function):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or not call.args:
                continue
            method = call.func.attr
            assert method not in NOT_LOGGED, f"{path}:{call.lineno}: {method} is not looked at here"
            if method in LEVELS or method == "_on_trouble":
                names = named(call.args[0], function)
                assert names or function.name == TROUBLE, f"{path}:{call.lineno}: the event's name is no literal"
                for name in names:
                    found[name].add("warning" if method == "_on_trouble" else method)
    return found


def test_the_table_of_log_lines_is_what_the_code_logs() -> None:
    """Each event that the code logs at info or above is in the table with its levels, and no other is."""
    in_code: defaultdict[str, set[str]] = defaultdict(set)
    for path in GATEWAY.rglob("*.py"):
        for name, levels in logged(path).items():
            in_code[name] |= levels
    page = README.read_text("utf-8")
    section = page[page.index("## Logs\n") :].split("\n## ", 1)[0]
    in_table = {
        name: set(levels.split(", "))
        for names, levels in re.findall(r"^\| (`[^|]+`) \| ([a-z, ]+) \|", section, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert in_table == in_code


def test_the_reader_sees_how_a_name_can_be_given(tmp_path: Path) -> None:
    """Literals, choices, variables, and names that are handed on are found, with their levels; debug is not."""
    module = tmp_path / "m.py"
    module.write_text(
        "def f(self, api):\n"
        "    self._log.info('a')\n"
        "    log.error('b' if self.x else 'c', url=1)\n"
        "    event = 'd' if self.x else 'e'\n"
        "    self._log.warning(event)\n"
        "    self._on_trouble('g', {})\n"
        "    self._log.debug('quiet')\n"
        "    api.info()\n",
        "utf-8",
    )
    assert logged(module) == {
        "a": {"info"}, "b": {"error"}, "c": {"error"}, "d": {"warning"}, "e": {"warning"}, "g": {"warning"},
    }  # fmt: skip
