"""The report: complete in itself, well formed, escaped, without secrets, with the right numbers."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bperp.flows import root_report
from bperp.flows.report import (
    AlignmentRow,
    BurstCell,
    BurstTable,
    CoherenceRow,
    Notice,
    ReportContent,
    ReportPicture,
    Setting,
    StepTiming,
    report_html,
)
from bperp.flows.root import Root
from bperp.flows.root_report import write_pictures_and_report
from bperp.pipeline.stack import Scene, Stack
from bperp.stores.cube import CubeStore
from bperp.stores.receipts import Ledger, Marker

# A valid PNG of 1 x 1 pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
VOID = {"meta", "img", "br", "hr", "link", "input"}
B1, B2 = "t154_329007_iw2", "t154_329008_iw2"


class Checker(HTMLParser):
    """Collect elements and text; fail on elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, first: str) -> list[str]:
        return next(row for row in self.rows if row and row[0] == first)

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(name="content")
def fixture_content(tmp_path: Path) -> ReportContent:
    (tmp_path / "velocity.png").write_bytes(PNG)
    cells = {(burst, date): BurstCell("used") for burst in (B1, B2) for date in ("D1", "D2", "D3")}
    cells[B1, "D2"] = BurstCell("flagged", "restituted orbit")
    cells[B2, "D3"] = BurstCell("rejected", "all samples are zero")
    del cells[B2, "D1"]
    return ReportContent(
        title="Al Haouz",
        subtitle="track 154, VV, 3 dates",
        summary=[("scatterers", "12,345"), ("median σ", "0.8 mm/yr")],
        settings=[
            Setting("scatterers.dispersion", "0.4", "0.4", "largest amplitude dispersion"),
            Setting("esd.minimum_coherence", "0.25", "0.3"),
        ],
        bursts=BurstTable([B1, B2], ["D1", "D2", "D3"], cells),
        alignment=[
            AlignmentRow("2023-09-04", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, "reference"),
            AlignmentRow("2023-09-16", -0.00213, 0.00041, 0.0312, 0.002, -85.34, 12.0),
            AlignmentRow("2023-09-28", 0.0, math.inf, -0.01, 0.003, 40.0, 24.0),
        ],
        coherence=[CoherenceRow("2023-09-04 2023-09-16", 0.624, 0.66, 0.7312)],
        scatterers=[("candidates", "54,321"), ("kept", "12,345")],
        pictures=[ReportPicture(tmp_path / "velocity.png", "Velocity", "Positive is towards.")],
        notices=[
            Notice("degraded", "date 2023-09-16 uses a restituted orbit", "O501"),
            Notice("error", "date 2023-10-10 was rejected", "D306"),
        ],
        timings=[
            StepTiming("ingest", 20.0, 6, 2_500_000_000, 1_300_000_000, 410_000_000, 500_000_000),
            StepTiming("coregister", 100.0, 12, 0, 500_000_000, 690_000_000, 700_000_000),
        ],
        versions=[("bperp", "0.1.0"), ("numpy", "2.4.6")],
        created="2026-11-20T12:00:00Z",
    )


def test_page_is_well_formed_and_has_all_sections(content: ReportContent) -> None:
    text = report_html(content)
    assert text.startswith("<!DOCTYPE html>")
    page = Checker(text)
    headings = {tag for tag, _ in page.elements}
    assert {"h1", "h2", "table", "figure", "nav", "main", "footer"} <= headings
    names = [attrs["id"] for tag, attrs in page.elements if tag == "section"]
    assert names == [
        "pictures",
        "bursts",
        "alignment",
        "coherence",
        "scatterers",
        "settings",
        "timings",
        "versions",
    ]
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert links == [f"#{name}" for name in names]


def test_page_loads_nothing_and_allows_only_its_own_style(content: ReportContent) -> None:
    text = report_html(content)
    page = Checker(text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "svg", "base"}
    attributes = [name for _, attrs in page.elements for name in attrs]
    assert "style" not in attributes, "inline styles are refused by the policy"
    assert not [name for name in attributes if name.startswith("on")]
    sources = [attrs["src"] for _, attrs in page.elements if "src" in attrs]
    assert len(sources) == 1
    assert all(str(source).startswith("data:image/png;base64,") for source in sources)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "url(" not in text
    (policy,) = [
        attrs["content"]
        for tag, attrs in page.elements
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    # The policy must come before anything that it governs.
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_pictures_are_inside_the_page(content: ReportContent) -> None:
    (image,) = [attrs for tag, attrs in Checker(report_html(content)).elements if tag == "img"]
    assert base64.b64decode(str(image["src"]).partition(",")[2]) == PNG
    assert image["alt"] == "Velocity"
    assert (image["width"], image["height"]) == ("1", "1")


def test_missing_or_false_pictures_become_a_sentence(
    tmp_path: Path, content: ReportContent
) -> None:
    (tmp_path / "fake.png").write_bytes(b"<svg onload=alert(1)>")
    (tmp_path / "short.png").write_bytes(PNG[:10])
    pictures = [ReportPicture(tmp_path / f"{name}.png", name) for name in ("gone", "fake", "short")]
    page = Checker(report_html(replace(content, pictures=pictures)))
    assert "img" not in {tag for tag, _ in page.elements}
    for picture in pictures:
        assert f"Picture not available: {picture.title} ({picture.title}.png)" in page.text


def test_burst_table_shows_holes_and_flags(content: ReportContent) -> None:
    page = Checker(report_html(content))
    assert page.row("date")[1:3] == [B1, B2]
    assert page.row("D1") == ["D1", "●", "·"]
    assert page.row("D2") == ["D2", "▲", "●"]
    assert page.row("D3") == ["D3", "●", "✕"]
    assert "● used 3, ▲ flagged 1, ✕ rejected 1, · hole 1" in page.text
    assert f"D2 {B1}: restituted orbit" in page.text
    assert f"D3 {B2}: all samples are zero" in page.text
    labels = [attrs["aria-label"] for _, attrs in page.elements if "aria-label" in attrs]
    assert "rejected: all samples are zero" in labels


def test_alignment_table_has_units_signs_and_geometry_only_dates(content: ReportContent) -> None:
    page = Checker(report_html(content))
    assert page.row("2023-09-16")[1:7] == ["−2.13", "0.41", "+31.2", "2.0", "−85.3", "+12"]
    assert page.row("2023-09-28")[1:] == [
        "0.00",
        "–",
        "−10.0",
        "3.0",
        "+40.0",
        "+24",
        "geometry only",
    ]
    assert page.row("2023-09-04")[7] == "reference"


def test_range_columns_are_left_out_without_any_estimate(content: ReportContent) -> None:
    row = AlignmentRow("2023-09-16", -0.00213, 0.00041, 0.0, math.inf, -85.34, 12.0)
    page = Checker(report_html(replace(content, alignment=[row])))
    assert page.row("2023-09-16") == ["2023-09-16", "−2.13", "0.41", "−85.3", "+12", ""]
    assert "range shift" not in page.text


def test_coherence_and_statistics(content: ReportContent) -> None:
    page = Checker(report_html(content))
    row = page.row("2023-09-04 2023-09-16")
    assert [cell.strip() for cell in row[2:]] == ["0.66", "73.1 %"]
    (meter,) = [attrs for tag, attrs in page.elements if tag == "meter"]
    assert meter["value"] == "0.624"
    assert page.row("candidates") == ["candidates", "54,321"]
    assert page.row("numpy") == ["numpy", "2.4.6"]


def test_settings_that_differ_come_first_and_are_marked(content: ReportContent) -> None:
    text = report_html(content)
    page = Checker(text)
    assert "1 of 2 settings differ from their defaults" in page.text
    names = [row[0] for row in page.rows if row and row[0] in {s.name for s in content.settings}]
    assert names == ["esd.minimum_coherence", "scatterers.dispersion"]
    marked = [attrs for tag, attrs in page.elements if tag == "tr" and attrs.get("class")]
    assert len(marked) == 1


def test_rates_are_computed_from_time_and_work(content: ReportContent) -> None:
    page = Checker(report_html(content))
    assert page.row("ingest") == ["ingest", "6", "20.0 s", "125.0", "65.0", "410", "500"]
    assert page.row("coregister") == ["coregister", "12", "1 min 40 s", "–", "5.0", "690", "700"]
    assert page.row("all steps") == ["all steps", "18", "2 min 00 s", "", "", "690", ""]


def test_errors_come_before_warnings(content: ReportContent) -> None:
    text = Checker(report_html(content)).text
    assert text.index("D306") < text.index("O501")
    assert "No warnings" not in text
    assert "No warnings" in Checker(report_html(replace(content, notices=[]))).text


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "&lt;b&gt;",
        "a\x00b\x1b[31m",
        "\u202egnp.exe",
        "]]></style><script>",
    ],
)
def test_texts_cannot_become_markup(tmp_path: Path, content: ReportContent, text: str) -> None:
    (tmp_path / "p.png").write_bytes(PNG)
    burst = BurstTable([text], [text], {(text, text): BurstCell("flagged", text)})
    hostile = ReportContent(
        title=text,
        subtitle=text,
        summary=[(text, text)],
        settings=[Setting(text, text, "other", text)],
        bursts=burst,
        alignment=[AlignmentRow(text, 0, 0, 0, 0, 0, 0, text)],
        coherence=[CoherenceRow(text, 0.5, 0.5, 0.5)],
        scatterers=[(text, text)],
        pictures=[ReportPicture(tmp_path / "p.png", text, text)],
        notices=[Notice("warning", text, text)],
        timings=[StepTiming(text, 1.0, 1)],
        versions=[(text, text)],
        created=text,
    )
    page, plain = Checker(report_html(hostile)), Checker(report_html(content))
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements}
    allowed = {name for _, attrs in plain.elements for name in attrs}
    assert {name for _, attrs in page.elements for name in attrs} <= allowed
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", report_html(hostile))
    if text.startswith("<script"):
        assert text in page.text


@pytest.mark.parametrize(
    "leak",
    [
        "https://user:S3cr3tTok3n@example.org/a",
        "https://example.org/a.zip?X-Amz-Signature=S3cr3tTok3n&x=1",
        "https://example.org/a.zip?access_token=S3cr3tTok3n",
        "Authorization: Bearer S3cr3tTok3n",
        "Authorization: Basic S3cr3tTok3n",
        "password=S3cr3tTok3n",
        "token: S3cr3tTok3n",
    ],
)
def test_secrets_are_masked_everywhere(content: ReportContent, leak: str) -> None:
    leaking = replace(
        content,
        subtitle=leak,
        settings=[Setting("url", leak, "")],
        notices=[Notice("warning", f"retry of {leak}")],
        versions=[("source", leak)],
    )
    text = report_html(leaking)
    assert "S3cr3tTok3n" not in text
    assert text.count("***") == 4


@pytest.mark.parametrize("name", ["ASF_PASS", "cdse.password", "s3.secret_access_key", "api_key"])
def test_settings_that_are_secrets_are_masked_by_name(content: ReportContent, name: str) -> None:
    text = report_html(replace(content, settings=[Setting(name, "hunter2", "")]))
    assert "hunter2" not in text
    assert Checker(text).row(name)[1] == "***"


def test_secrets_of_the_environment_are_masked(
    content: ReportContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3cr3t/K3y+x")
    text = report_html(replace(content, notices=[Notice("warning", "signed by S3cr3t/K3y+x")]))
    assert "S3cr3t" not in text
    assert "signed by ***" in Checker(text).text


def test_ordinary_words_are_not_masked(content: ReportContent) -> None:
    plain = "basic coregistration, key dates; tokens 5; pass=ascending; keyhole"
    text = report_html(replace(content, subtitle=plain, settings=[Setting("orbit.pass", "A", "B")]))
    assert plain in Checker(text).text
    assert Checker(text).row("orbit.pass")[1] == "A"


def test_empty_report_is_a_page() -> None:
    page = Checker(report_html(ReportContent("Nothing yet")))
    assert "section" not in {tag for tag, _ in page.elements}
    assert "Nothing yet" in page.text


def test_not_finite_numbers_are_dashes(content: ReportContent) -> None:
    rows = [CoherenceRow("P", math.nan, math.nan, math.nan)]
    page = Checker(report_html(replace(content, coherence=rows)))
    assert page.row("P") == ["P", "–", "–", "–"]
    assert "nan" not in page.text.lower()


# Pictures and report of a root -------------------------------------------------------------------


class Drawing:
    """Stands in for the steps' pictures: counts what is drawn, and may stop in the middle."""

    def __init__(self) -> None:
        self.drawn: list[str] = []
        self.pictures = {"ingest": ["01-ingest-a", "01-ingest-b"], "geometry": ["02-geometry"]}
        self.stops_at = ""

    def __call__(self, step: str, folder: Path, *_: Any) -> list[Path]:
        if step == self.stops_at:
            raise KeyboardInterrupt
        self.drawn.append(step)
        files = [folder / f"{name}.png" for name in self.pictures.get(step, [])]
        for file in files:
            file.write_bytes(PNG)
        return files


@pytest.fixture(name="drawing")
def fixture_drawing(monkeypatch: pytest.MonkeyPatch) -> Drawing:
    drawing = Drawing()
    monkeypatch.setattr(root_report, "draw_step", drawing)

    def content(root: Root, pictures: list[Path]) -> ReportContent:
        return ReportContent("T", pictures=[ReportPicture(p, p.stem) for p in pictures])

    monkeypatch.setattr(root_report, "report_content", content)
    return drawing


@pytest.fixture(name="store", params=["local", "memory"])
def fixture_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CubeStore]:
    """Both kinds of root go the same way."""
    remote = f"memory://{tmp_path.name}/run"
    store = CubeStore(str(tmp_path) if request.param == "local" else remote)
    yield store
    store.objects.remove_tree("")


def opened(store: CubeStore, receipts: dict[str, str]) -> Root:
    """Return a root whose steps were finished by tasks with these receipts."""
    for name, receipt in receipts.items():
        Ledger(store.objects).write_marker(Marker(name, "1", {"key": receipt}))
    stack = Stack("2020-01-01", (), {}, Scene(1, 1, (1, 1), ()))
    return Root(store, stack, {"name": "t"}, ())


def test_pictures_and_report_are_objects_of_the_root(store: CubeStore, drawing: Drawing) -> None:
    result = write_pictures_and_report(opened(store, {"ingest": "a", "geometry": "b"}))
    assert drawing.drawn == ["ingest", "geometry"]
    names = ["01-ingest-a.png", "01-ingest-b.png", "02-geometry.png"]
    assert store.objects.names("pictures") == [f"pictures/{name}" for name in names]
    assert result["pictures"] == [f"{store.objects.url}/pictures/{name}" for name in names]
    assert result["report"] == f"{store.objects.url}/report.html"
    report = store.objects.read("report.html")
    assert report is not None
    assert report.count(base64.b64encode(PNG)) == 3


def test_only_what_changed_is_drawn_again(store: CubeStore, drawing: Drawing) -> None:
    write_pictures_and_report(opened(store, {"ingest": "a", "geometry": "b"}))
    report = store.objects.read("report.html")
    drawing.drawn.clear()
    write_pictures_and_report(opened(store, {}))
    assert drawing.drawn == []
    assert store.objects.read("report.html") == report
    # Another burst in place of b: its picture must not stay behind.
    drawing.pictures["ingest"] = ["01-ingest-a", "01-ingest-c"]
    write_pictures_and_report(opened(store, {"ingest": "c"}))
    assert drawing.drawn == ["ingest"]
    assert [name[-5] for name in store.objects.names("pictures")] == ["a", "c", "y"]
    changed = store.objects.read("report.html")
    assert changed is not None
    assert changed.count(b"<figure>") == 3
    assert b"01-ingest-c" in changed


@pytest.mark.parametrize("lost", ["pictures/02-geometry.png", "report.html"])
def test_what_was_lost_is_made_again(store: CubeStore, drawing: Drawing, lost: str) -> None:
    write_pictures_and_report(opened(store, {"ingest": "a", "geometry": "b"}))
    before = store.objects.read(lost)
    drawing.drawn.clear()
    store.objects.remove(lost)
    write_pictures_and_report(opened(store, {}))
    assert drawing.drawn == (["geometry"] if "geometry" in lost else [])
    assert store.objects.read(lost) == before


def test_a_run_killed_while_drawing_is_made_good(store: CubeStore, drawing: Drawing) -> None:
    write_pictures_and_report(opened(store, {"ingest": "a", "geometry": "b"}))
    drawing.pictures["ingest"] = ["01-ingest-c"]
    drawing.stops_at = "geometry"
    with pytest.raises(KeyboardInterrupt):
        write_pictures_and_report(opened(store, {"ingest": "new", "geometry": "new"}))
    # The report in the root is the old one and whole; the next run knows that it is old.
    drawing.stops_at = ""
    drawing.drawn.clear()
    write_pictures_and_report(opened(store, {}))
    assert drawing.drawn == ["ingest", "geometry"]
    names = store.objects.names("pictures")
    assert names == ["pictures/01-ingest-c.png", "pictures/02-geometry.png"]
    report = store.objects.read("report.html")
    assert report is not None
    assert report.count(b"<figure>") == 2
