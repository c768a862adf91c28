"""The page is well-formed, its links lead somewhere from disk, and no text can become HTML."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from remime.errors import InputError
from remime.metrics import METRICS
from remime.stages import figures, plan, report, score, sheet, summarize
from remime.tables import write_table
from tests.evaluation import NETWORKS, SIZE, Fake, make_dataset, read_pairs, write_videos

BATCH = "0000-of-0001"
MODELS = {"linear": {"method": "linear", "inverter": "psp"}, "mapping": {"method": "mapping"}}
OPTIONS = {"models": MODELS, "protocols": {"cross": {"protocol": "cross", "batches": 1}}}
CITED = "https://example.org/paper"
WEIGHTS = "name\trole\tversion\tmirror\tterms\tweights_terms\tpackage_terms\n"
VOID = {"meta", "link", "img", "br", "hr", "input", "source", "track"}


class Page(HTMLParser):
    """Collects links and text, and checks that elements are closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values[name] for name in ("href", "src") if values.get(name)]
        self.loaded += [values["src"]] if "src" in values else []
        self.ids |= {values["id"]} if "id" in values else set()
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        if tag in ("td", "tr"):
            self.text += " "

    def handle_endtag(self, tag):
        assert self._open
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """All that the report stage reads, in the workflow's layout."""
    root = tmp_path_factory.mktemp("a world")
    results = root / "results"
    dataset = make_dataset(results / "faces")
    benchmark, out = results / "benchmarks" / "cross", results / "report"
    plan.run([dataset], benchmark / "pairs.parquet", {"pairs": 2, "targets": 1})
    for model, fake in zip(MODELS, (Fake(offset=0.2), Fake()), strict=True):
        write_videos(benchmark, model, fake)
        folder = benchmark / model
        score.run(
            benchmark / "pairs.parquet", BATCH, [dataset], folder / "videos" / BATCH,
            folder / "scores" / f"{BATCH}.parquet", folder / "features" / f"{BATCH}.npz",
            {"model": model}, NETWORKS,
        )  # fmt: skip
    summarize.run([benchmark], out / "metrics.parquet", out / "metrics.csv", out / "tables.md", OPTIONS)
    figures.run(out / "metrics.parquet", [benchmark], [], None, out / "figures", OPTIONS)
    sheet.run(
        benchmark / "pairs.parquet", benchmark, [dataset], out / "videos" / "cross",
        {"models": MODELS, "videos": 1, "resolution": SIZE},
    )  # fmt: skip
    (root / "weights.tsv").write_text(
        WEIGHTS + "sface\tidentity\t1\tnpm:x==1\tpermissive\tApache-2.0\tApache-2.0\n"
        "unused\tgaze\t1\tnpm:y==1\tresearch\tno\tno\n"
    )
    (root / "samples.tsv").write_text("name\tmirror\tmember\tterms\ncid\tpypi:z==1\tz/cid.mp4\tMIT\n")
    (root / "more.tsv").write_text("name\tmirror\tmember\tterms\ncid\tpypi:more==1\tmore/cid.mp4\tMIT\n")
    card = results / "models" / "mapping" / "card.md"
    card.parent.mkdir(parents=True)
    card.write_text(
        "# mapping\n\n| steps | init |\n|---|---|\n| 10 | models/mapping |\n\n"
        "<script>alert(1)</script> [bad](javascript:alert(1)) ![x](http://a.org/x.png) "
        f"[paper]({CITED}) [file](file:///etc/passwd)\n"
    )
    return root, dataset


def make(finished, **options) -> Path:
    root, dataset = finished
    out = root / "results" / "report"
    report.run(
        out / "metrics.parquet", out / "metrics.csv", out / "tables.md", out / "figures",
        [out / "videos" / "cross"], [dataset], [root / "results" / "benchmarks" / "cross"],
        [root / "results" / "models" / "mapping" / "card.md"],
        root / "weights.tsv", [root / "samples.tsv", root / "more.tsv"], out / "index.html",
        {"title": "<Faces> & more", "weights": ["sface"], **options},
    )  # fmt: skip
    return out / "index.html"


def test_every_link_is_relative_and_leads_to_a_file_or_a_section(finished):
    path = make(finished)
    page = Page(path)
    assert len(page.links) > 20
    for link in page.links:
        if link in (CITED, "http://a.org/x.png"):
            continue
        parts = urlparse(link)
        assert not parts.scheme
        assert not parts.netloc
        if parts.path:
            assert not parts.path.startswith("/")
            assert (path.parent / unquote(parts.path)).is_file(), link
        else:
            assert parts.fragment in page.ids


def test_page_still_works_after_the_results_were_moved(finished, tmp_path):
    make(finished)
    moved = shutil.copytree(finished[0] / "results", tmp_path / "elsewhere")
    path = moved / "report" / "index.html"
    for link in Page(path).links:
        if urlparse(link).path and urlparse(link).netloc == "":
            assert (path.parent / unquote(urlparse(link).path)).is_file()


def test_nothing_is_fetched_from_elsewhere_and_no_script_runs(finished):
    path = make(finished)
    page = Page(path)
    assert {"script", "iframe", "link", "object"}.isdisjoint(page.tags)
    text = path.read_text()
    assert "<script" not in text
    assert all(not urlparse(url).netloc for url in page.loaded)
    assert not any(link.startswith("javascript") for link in page.links)


def test_text_is_escaped(finished):
    page = Page(make(finished))
    assert "<Faces> & more" in page.text
    assert "<script>alert(1)</script>" in page.text  # shown, not obeyed
    assert "<b>dark</b>" in page.text
    assert "CC0 <test>" in page.text


def test_all_parts_are_there(finished):
    page = Page(make(finished))
    for part in ("results", "pictures", "videos", "plots", "models", "data", "terms", "environment"):
        assert part in page.ids
    assert page.tags.count("video") == 1
    assert page.tags.count("img") > 8
    for text in ("Table 1 of P1", "8.491", "no_face", "lost", "blur", "sface", "Apache-2.0", "models/mapping",
                 "z/cid.mp4", "more/cid.mp4", METRICS["csim"].description, "torch"):  # fmt: skip
        assert text in page.text, text
    assert "unused" not in page.text


def test_light_and_dark(finished):
    text = make(finished).read_text()
    assert "prefers-color-scheme: dark" in text
    assert 'name="color-scheme" content="light dark"' in text


def test_counts_of_the_dataset(finished):
    page = Page(make(finished))
    words = " ".join(page.text.split())
    assert "3 ok, 1 no_face" in words
    assert "29 3 26 3 blur" in words  # aligned frames, interpolated, kept, dropped


def test_what_was_asked_for_and_got(finished):
    path = make(finished)
    # Three clips of three people are in the manifest, and a fourth one in the status table.
    assert "3 of 3 3 of 3 0.00 1 no_face – –" in " ".join(Page(path).text.split())
    rows = (path.parent / "datasets.csv").read_text().splitlines()
    assert rows[0] == "dataset,what,name,value"
    assert {"faces,asked,clips,3", "faces,got,clips,3", "faces,lost,no_face,1"} <= set(rows)
    assert "datasets.csv" in Page(path).links


def test_counts_of_the_benchmark(finished):
    pairs = read_pairs(finished[0] / "results" / "benchmarks" / "cross")
    frames = sum(pair["frames"] for pair in pairs)
    words = " ".join(Page(make(finished)).text.split())
    assert f"cross cross 2 {frames} 2 " in words


def test_long_failure_lists_are_cut_with_a_count(finished, tmp_path):
    root, _ = finished
    dataset = make_dataset(tmp_path / "many")
    rows = [{"clip": f"c{i}", "stage": "align", "status": "unreadable", "detail": "x"} for i in range(9)]
    write_table(dataset.status(dataset.shard_names[0]), "status", rows)
    page = Page(make((root, dataset), failures=4))
    assert "c3" in page.text
    assert "c4" not in page.text
    assert "and 5 more" in " ".join(page.text.split())


def test_file_that_a_gallery_names_must_exist(finished, tmp_path):
    root = Path(shutil.copytree(finished[0], tmp_path / "copy"))
    (root / "results" / "report" / "figures" / "cross_csim.svg").unlink()
    with pytest.raises(InputError, match=r"cross_csim\.svg"):
        make((root, finished[1]))
    (root / "results" / "report" / "figures" / "figures.json").write_text("{")
    with pytest.raises(InputError, match=r"figures\.json"):
        make((root, finished[1]))


def test_main_parses_the_workflows_command_line(finished, tmp_path, capsys):
    root, dataset = finished
    out = root / "results" / "report"
    page = out / "other.html"
    report.main(
        ["--metrics", f"{out}/metrics.parquet", "--csv", f"{out}/metrics.csv", "--tables", f"{out}/tables.md",
         "--figures", f"{out}/figures", "--sheets", f"{out}/videos/cross", "--datasets",
         f"{dataset.folder}=1", "--benchmarks", f"{root}/results/benchmarks/cross", "--cards",
         f"{root}/results/models/mapping/card.md", "--weights",
         f"{root}/weights.tsv", "--samples", f"{root}/samples.tsv", "--output", str(page),
         "--counts", str(out / "d.csv"), "--options",
         json.dumps({"title": "x"})]
    )  # fmt: skip
    assert "file://" in capsys.readouterr().out
    assert "unused" in Page(page).text  # without names all networks of the table are listed
