"""Every module says what is public, in words of its own and under a name that says something."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import bperp
import bperp.flows
import bperp.kernels
import bperp.pipeline
import bperp.stores

REPOSITORY = Path(__file__).resolve().parents[2]
LAYERS = (bperp.kernels, bperp.stores, bperp.pipeline, bperp.flows)
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "misc"}


def module_names():
    for layer in LAYERS:
        for module in pkgutil.walk_packages(layer.__path__, layer.__name__ + "."):
            yield module.name


MODULES = sorted(module_names())


def source_of(name):
    path = REPOSITORY.joinpath(*name.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def test_the_walk_sees_all_files():
    on_disk = {
        "bperp." + ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for layer in ("kernels", "stores", "pipeline", "flows")
        for path in (REPOSITORY / layer).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert on_disk == {name for name in MODULES if source_is_module(name)}


def source_is_module(name):
    return not REPOSITORY.joinpath(*name.split(".")[1:]).is_dir()


@pytest.mark.parametrize("name", MODULES)
def test_public_names_exist_and_are_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    listed = getattr(module, "__all__", ())
    assert len(set(listed)) == len(listed)
    for public in listed:
        assert hasattr(module, public), f"{name}.__all__ names {public}, which does not exist"
        assert not public.startswith("_")
    for node in source_of(name).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not is_private(node):
            assert ast.get_docstring(node), f"{name}.{node.name} has no docstring"


def is_private(node):
    decorators = {getattr(item, "id", "") for item in node.decorator_list}
    return node.name.startswith("_") or "overload" in decorators


def test_module_names_say_something():
    parts = {part for name in MODULES for part in name.split(".")}
    assert not parts & EMPTY_NAMES


def test_the_package_itself_offers_little():
    assert set(bperp.__all__) <= {"open", "__version__"}
    for public in bperp.__all__:
        assert getattr(bperp, public).__doc__
