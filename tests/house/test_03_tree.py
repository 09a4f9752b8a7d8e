"""What lies in the repository: sizes, words, long functions, matching documents."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MEGABYTE = 2**20
THIS_FILE = Path(__file__).resolve()

# Paths of somebody's machine, addresses of package registries, notes about how the text was made,
# and words that the conventions replace. Formats that fix a word are excused below.
FORBIDDEN = {
    "path of a machine": r"/work/(main|shared|\.library)|/root/\.|/tmp/(venv|bash|contract)",
    "package registry": r"pypi\.org|pythonhosted|registry\.npmjs|deb\.debian\.org|anaconda\.org",
    "how it was made": r"\b(claude|anthropic|chatgpt|copilot)\b|language model|as an ai\b",
    "tracker number": r"\b(issue|ticket|pull request)\s+#\d+\b",
    "unfinished": r"\b(TODO|FIXME|XXX)\b",
}
REPLACED = r"\b(masters?|slaves?|subswaths?)\b"
FORMATS_WITH_FIXED_WORDS = ("stamps", "project_conf", "test_03_tree.py", "conventions.md")
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".cff", ".lock", ".sh", ".html", ".js", ".css", ""}


def tracked_files():
    git = shutil.which("git")
    if git is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout.decode()
    paths = (REPOSITORY / name for name in listed.split("\0") if name)
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def text_files():
    return [path for path in tracked_files() if path.suffix in TEXT and path != THIS_FILE]


def python_files():
    return [path for path in tracked_files() if path.suffix == ".py"]


def test_no_file_is_larger_than_a_megabyte():
    large = {str(p): p.stat().st_size for p in tracked_files() if p.stat().st_size > MEGABYTE}
    assert not large


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_forbidden_words(kind):
    pattern = re.compile(FORBIDDEN[kind], 0 if kind == "unfinished" else re.IGNORECASE)
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:80]}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_neutral_words():
    pattern = re.compile(REPLACED, re.IGNORECASE)
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:80]}"
        for path in text_files()
        if not any(word in str(path.relative_to(REPOSITORY)) for word in FORMATS_WITH_FIXED_WORDS)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_functions_are_short():
    # 60 lines without the docstring: more is two things in one.
    long = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            lines = node.end_lineno - body[0].lineno + 1
            if lines > 60:
                long.append(f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name} {lines}")
    assert not long, "\n".join(long)


def test_test_files_have_names_of_their_own():
    # Needed by pytest's importlib mode and for finding the right file in a report.
    names = [path.name for path in python_files() if path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))


def test_locks_name_no_index_and_pin_every_file():
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        assert "://" not in text
        entries = re.split(r"\n(?=\S)", text)
        for entry in entries:
            if entry.startswith("#"):
                continue
            assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==", entry), entry
            assert "--hash=sha256:" in entry, entry


def test_development_lock_contains_the_runtime_lock():
    def pins(name):
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        return set(re.findall(r"^(\S+==\S+)", text, re.MULTILINE))

    assert pins("requirements.lock") <= pins("requirements-dev.lock")


def source_codes():
    codes = set()
    for layer in ("flows", "pipeline", "stores"):
        for path in (REPOSITORY / layer).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    codes |= set(re.findall(r"^[CDSOENRX]\d{3}$", node.value))
    return codes


def test_error_codes_are_documented_and_real():
    page = (REPOSITORY / "docs" / "error-codes.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| ([CDSOENRX]\d{3}) \|", page, re.MULTILINE))
    assert documented == source_codes()


def test_links_between_documents_lead_somewhere():
    broken = []
    for page in (p for p in tracked_files() if p.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(REPOSITORY)}: {target}")
    assert not broken, "\n".join(broken)
