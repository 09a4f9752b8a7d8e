"""The README's example runs as it stands and prints what it says; documents name what exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    """Return a folder that holds a finished demonstration called bperp-demo.

    ``BPERP_DEMO`` names one that ``make demo`` has made; otherwise a tiny one is made here.
    """
    folder = tmp_path_factory.mktemp("readme")
    finished = os.environ.get("BPERP_DEMO")
    if finished:
        (folder / "bperp-demo").symlink_to(Path(finished).resolve(), target_is_directory=True)
        return folder
    from bperp.flows.demo import run_demo

    run_demo(folder / "bperp-demo", "tiny", engine="serial")
    return folder


def python_blocks():
    return re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_example_is_short():
    (block,) = python_blocks()
    lines = [line for line in block.splitlines() if line.strip()]
    assert len(lines) <= 12


def test_example_prints_a_series(demo_folder):
    (block,) = python_blocks()
    result = subprocess.run(
        [sys.executable, "-W", "error", "-P", "-c", block],
        cwd=demo_folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    series = re.findall(r"^(\d{4}-\d{2}-\d{2}) +([+-]\d+\.\d) mm$", result.stdout, re.MULTILINE)
    assert len(series) >= 4, result.stdout
    assert [date for date, _ in series] == sorted(date for date, _ in series)
    reference = [float(value) for _, value in series if value.endswith("0.0") and len(value) == 4]
    assert 0.0 in reference, "the reference date has no displacement"


def test_documented_variables_are_those_of_a_finished_root(demo_folder):
    import bperp

    page = (REPOSITORY / "docs" / "data-model.md").read_text(encoding="utf-8")
    documented = {}
    for heading, body in re.findall(r"^## (\S+/\S+)\n(.*?)(?=^## |\Z)", page, re.M | re.S):
        rows = re.findall(r"^\| (`.*?`) \| (.*?) \| (.*?) \|", body, re.MULTILINE)
        documented[heading.split("/")[-1]] = {
            name: (dims, kind)
            for names, dims, kind in rows
            for name in re.findall(r"`(\w+)`", names)
        }
    actual = {}
    for product, dataset in bperp.open(str(demo_folder / "bperp-demo" / "root")).items():
        variables = set(dataset.variables) - {"date"}
        actual.setdefault(product.split("/")[-1], {}).update(
            {name: dataset[name] for name in variables}
        )
    assert set(documented) == set(actual)
    for product, variables in actual.items():
        assert set(documented[product]) == set(variables), product
        for name, array in variables.items():
            dims, kind = documented[product][name]
            axes = () if dims == "-" else tuple(dims.split(", "))
            assert axes == array.dims, f"{product} {name}"
            expected = {"date": "datetime64", "text": "object"}.get(kind, kind)
            assert str(array.dtype).startswith(expected), f"{product} {name}"


def command_line_words(text):
    """Return the verbs of all ``bperp VERB`` in console blocks."""
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).splitlines()
    return {m.group(1) for line in lines if (m := re.search(r"\bbperp ([a-z]+)", line))}


def test_documented_verbs_exist():
    from bperp.flows.cli import app

    verbs = {command.callback.__name__ for command in app.registered_commands}
    pages = [README, *(p.read_text(encoding="utf-8") for p in REPOSITORY.glob("docs/**/*.md"))]
    used = set().union(*map(command_line_words, pages))
    assert used
    assert used <= verbs
    listed = set(re.findall(r"^\| `bperp ([a-z]+)", README, re.MULTILINE))
    assert listed == verbs


def test_documented_steps_and_options_exist():
    from bperp.flows.config import STEPS, commented_yaml

    architecture = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = architecture.split("## Steps")[1].split("##")[0]
    assert tuple(re.findall(r"^\| (\w+) \| [`f]", table, re.MULTILINE)) == STEPS
    options = commented_yaml({})
    for page in REPOSITORY.glob("docs/*.md"):
        text = page.read_text(encoding="utf-8")
        for section, key in re.findall(
            r"`(compute|orbits|dem|export|amplitude|timeseries|scatterers)\.(\w+)", text
        ):
            block = options.split(f"\n{section}:")[1]
            assert re.search(rf"^\s+#?\s*{key}:", block, re.MULTILINE), (
                f"{page.name}: {section}.{key}"
            )


def test_pictures_of_the_readme_exist():
    for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (REPOSITORY / target).is_file(), target
