"""Every row of the catalogue of runtime and storage faults has a test or an honest reason."""

import ast
import importlib.util
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "tests" / "faults"


def load_registry():
    spec = importlib.util.spec_from_file_location("fault_registry", FOLDER / "fault_registry.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REGISTRY = load_registry()


def functions_in(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def declared_rows():
    """Return row to the tests that declare it with the decorator."""
    found = {}
    for path in sorted(FOLDER.glob("test_*.py")):
        for function in functions_in(path):
            for decorator in function.decorator_list:
                if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "fault":
                    row = ast.literal_eval(decorator.args[0])
                    found.setdefault(row, []).append(f"{path.name}::{function.name}")
    return found


def test_the_catalogue_has_its_rows():
    assert list(REGISTRY.ROWS) == [f"G{number:02d}" for number in range(1, 26)]


def test_every_row_is_proven_or_explained_and_only_once():
    parts = [set(declared_rows()), set(REGISTRY.ELSEWHERE), set(REGISTRY.NOT_APPLICABLE)]
    assert set.union(*parts) == set(REGISTRY.ROWS)
    assert sum(map(len, parts)) == len(REGISTRY.ROWS), "a row has a test as well as an excuse"


def test_what_declares_a_row_is_a_test():
    names = [name for tests in declared_rows().values() for name in tests]
    assert names
    assert all(name.partition("::")[2].startswith("test_") for name in names)


@pytest.mark.parametrize("row", REGISTRY.ELSEWHERE)
def test_rows_that_are_proven_elsewhere_have_tests_there(row):
    functions = functions_in(REPOSITORY / REGISTRY.ELSEWHERE[row])
    assert any(function.name.startswith("test_") for function in functions)


@pytest.mark.parametrize("row", REGISTRY.NOT_APPLICABLE)
def test_rows_without_a_subject_are_shown(row):
    reason = REGISTRY.NOT_APPLICABLE[row]
    assert 20 < len(reason) < 120
    pytest.skip(f"not applicable: {row} {REGISTRY.ROWS[row]}: {reason}")
