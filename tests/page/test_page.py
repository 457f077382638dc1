"""The page to look around in: its content, and how it behaves in a browser."""

import json
import re
import shutil

import numpy as np
import pytest

import plot_results
from mnist_bn.config import RunConfig
from mnist_bn.preparation import prepare
from mnist_bn.training import train
from tests.helpers import write_result_folder

pytest.importorskip("plotly")

FOREIGN = "<script>alert(1)</script>"
PLOT = re.compile(r'<script type="application/json" data-plot="(.*?)">(.*?)</script>', re.S)


def write_run(folder, model, seed, accuracies, **settings):
    args = {"model": model, "optimizer": "SGD", "seed": seed, "dataset": "mnist"}
    log = [
        {"epoch": n, "main/loss": 0.1, "validation/main/accuracy": accuracy}
        for n, accuracy in enumerate(accuracies, start=1)
    ]
    write_result_folder(folder, {**args, "semantics": "today", **settings}, log)
    (folder / "model.npz").touch()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs that have all that a page shows, on digits."""
    out = tmp_path_factory.mktemp("page")
    for model in ("ReluMLP", "ReluMLP_BN"):
        config = RunConfig(
            model,
            dataset="digits",
            epoch=3,
            study="dying-relu",
            observe="dead-units,weight-updates,activation-percentiles,gradient-norms,"
            "activation-moments",
            out=str(out / "result/dying-relu"),
        )
        train(prepare(config))
    return out


@pytest.fixture(scope="module")
def page(trained):
    path = trained / "figures/page.html"
    assert plot_results.main([str(trained / "result"), "-o", str(path.parent), "--page"]) == 0
    return path


def plots(path):
    return {name: json.loads(text) for name, text in PLOT.findall(path.read_text())}


def test_it_has_a_panel_for_all_that_is_there_and_asks_for_nothing(page):
    text = page.read_text()
    titles = re.findall(r"<h3>(.*?)</h3>", text)
    assert titles[:6] == [
        "Learning curves",
        "Claims and verdicts",
        "Film of the weight updates",
        "Activation percentiles of the last observed layer",
        "Gradient norms of the weights",
        "Moments of the channels against depth",
    ]
    for model in ("ReluMLP", "ReluMLP_BN"):
        for panel in ("confusion matrix", "what it gets wrong", "filters of the first layer"):
            assert f"{model}: {panel}" in titles
    assert page.stat().st_size < 6e6
    ours = text[: text.index("<script>")] + text[text.index("</head>") :]
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", ours)
    # One sentence or two say what there is to see, and the numbers are there for a screen reader.
    assert text.count("</h3><p>") == len(titles)
    assert text.count('<th scope="col">') > 10


def test_the_curves_are_the_means_and_bands_of_the_seeds(tmp_path):
    for seed, accuracies in enumerate(([0.5, 0.7], [0.6, 0.9])):
        write_run(tmp_path / f"r/{seed}", "MnistCNN", seed, accuracies)
    write_run(tmp_path / "r/other", "MnistCNN_BN_before", 0, [0.8, 0.95])
    assert plot_results.main([str(tmp_path / "r"), "--page", str(tmp_path / "p.html")]) == 0
    (plot,) = plots(tmp_path / "p.html").values()
    band, line, other = plot["data"]
    assert line["x"] == [1, 2] and line["y"] == pytest.approx([0.55, 0.8])
    assert band["y"] == pytest.approx([0.6, 0.9, 0.7, 0.5])
    assert band["meta"] == line["meta"] == {"network": "MnistCNN", "optimizer": "SGD"}
    assert other["name"] == "MnistCNN_BN_before" and other["visible"] is True
    assert "0.8000 (0.7000 to 0.9000)" in (tmp_path / "p.html").read_text()


def test_foreign_names_are_text(tmp_path):
    write_run(tmp_path / "r/a", FOREIGN, 0, [0.5], optimizer="</script><b>")
    write_run(tmp_path / "r/b", "Net", 0, [0.5], optimizer="SGD")
    assert plot_results.main([str(tmp_path / "r"), "--page", str(tmp_path / "p.html")]) == 0
    text = (tmp_path / "p.html").read_text()
    assert FOREIGN not in text and "</script><b>" not in text
    assert "&lt;script&gt;" in text


def test_percentiles_and_moments_are_those_measured(trained, page):
    drawn = {
        tuple(line.get("name", "") for line in plot["data"]): plot["data"]
        for plot in plots(page).values()
    }
    measured = {}
    for model in ("ReluMLP", "ReluMLP_BN"):
        (folder,) = (trained / "result/dying-relu").glob(f"{model}-*")
        measured[model] = {
            name: np.load(folder / f"activation-{name}.npz") for name in ("percentiles", "moments")
        }
    moments = next(lines for names, lines in drawn.items() if "ReluMLP: mean, epoch 0" in names)
    last = measured["ReluMLP_BN"]["moments"]["mean"][-1]
    (line,) = (one for one in moments if one["name"] == "ReluMLP_BN: mean, epoch 0")
    assert line["x"] == [1, 2] and line["y"] == pytest.approx(last, rel=1e-3)
    percentiles = next(lines for names, lines in drawn.items() if any("85 %" in n for n in names))
    (line,) = (one for one in percentiles if one["name"] == "ReluMLP: 50 %")
    key = next(name for name in measured["ReluMLP"]["percentiles"] if "relu" in name)
    medians = measured["ReluMLP"]["percentiles"][key][:, 1].mean(axis=-1)
    assert line["y"] == pytest.approx(medians, rel=1e-3)


def test_the_same_runs_make_the_same_bytes(trained, page, tmp_path):
    again = tmp_path / "again.html"
    out = str(tmp_path / "figures")
    assert plot_results.main([str(trained / "result"), "-o", out, "--page", str(again)]) == 0
    assert again.read_bytes() == page.read_bytes()


def test_a_network_that_cannot_be_loaded_costs_a_line(trained, tmp_path, capsys):
    shutil.copytree(trained / "result", tmp_path / "result")
    for path in tmp_path.rglob("model.npz"):
        path.write_bytes(b"damaged")
    assert plot_results.main([str(tmp_path / "result"), "--page"]) == 0
    assert "its network is not on the page" in capsys.readouterr().err
    assert "confusion" not in (tmp_path / "result/figures/page.html").read_text()


def test_a_file_that_cannot_be_written_is_one_line(trained, tmp_path, capsys):
    (tmp_path / "file").touch()
    target = str(tmp_path / "file/page.html")
    out = str(tmp_path / "figures")
    assert plot_results.main([str(trained / "result"), "-o", out, "--page", target]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_plotly_it_is_one_line(tmp_path, monkeypatch, capsys):
    from mnist_bn import page

    monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: None)
    assert plot_results.main([str(tmp_path), "--page"]) == 2
    assert "requirements-page.txt" in capsys.readouterr().err


def test_the_confusion_matrix_counts_all_test_images(page):
    matrix = next(plot for plot in plots(page).values() if plot["data"][0]["type"] == "heatmap")
    counts = np.array(matrix["data"][0]["text"])
    assert counts.shape == (10, 10) and counts.sum() == 300


@pytest.fixture
def browser():
    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no Chromium here")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
def test_in_a_browser(browser, page, scheme, width):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    tab, complaints = context.new_page(), []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    tab.on(
        "request",
        lambda r: r.url.startswith(("file:", "data:", "blob:")) or complaints.append(r.url),
    )
    tab.goto(page.as_uri())
    tab.wait_for_selector(".plot .main-svg")
    assert tab.evaluate("document.documentElement.dataset.theme") == scheme
    assert tab.evaluate("document.documentElement.scrollWidth") <= width

    def visible():
        return tab.evaluate("document.querySelector('.plot').data.filter(t => t.visible).length")

    before = visible()
    box = tab.get_by_role("checkbox").first
    box.focus()
    tab.keyboard.press("Space")
    assert not box.is_checked() and visible() < before
    box.check()
    assert visible() == before
    tab.get_by_label("error, logarithmic").first.check()
    assert tab.evaluate("document.querySelector('.plot').layout.yaxis.type") == "log"
    slider = tab.locator(".film input")
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator(".film output").inner_text() == "2"
    shown = tab.evaluate("[...document.querySelectorAll('.film img')].map(i => !i.hidden)")
    assert shown == [False, True, False]
    tab.get_by_role("button", name="Play").click()
    tab.wait_for_function("document.querySelector('.film output').textContent === '3'")
    filter_of_film = "getComputedStyle(document.querySelector('.film img')).filter"
    assert (tab.evaluate(filter_of_film) == "none") == (scheme == "light")
    tab.get_by_role("button", name="Light or dark").click()
    assert (tab.evaluate(filter_of_film) == "none") == (scheme == "dark")
    assert tab.evaluate("document.documentElement.dataset.theme") != scheme
    assert complaints == []
    context.close()
