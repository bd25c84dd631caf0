"""The report in a real browser: nothing sticks out on a phone, it prints, and it asks for nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from act.results.ptq_search import LayerSensitivity, Trials
from tests.reporting.test_report import Workspace
from tests.support import results

BROWSER = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--allow-file-access-from-files", "--virtual-time-budget=4000"),
)
# The page itself has no script, so that another page measures it: how wide its content is beside the window.
MEASURE = """<!doctype html><iframe id="page" src="report.html" style="width: {width}px; height: 900px"></iframe>
<pre id="found"></pre><script>
page.onload = () => {{
  const root = page.contentDocument.documentElement;
  const outside = [...root.querySelectorAll("body *")].filter(
    (e) => !e.closest(".scroll, svg, details") && e.getBoundingClientRect().right > root.clientWidth + 1);
  const named = outside.map((e) => e.tagName + " " + e.textContent.slice(0, 40));
  found.textContent = JSON.stringify({{width: root.clientWidth, content: root.scrollWidth, outside: named}});
}};
</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (Debian's package `chromium`)")


def browse(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(BROWSER), *QUIET, f"--user-data-dir={folder / 'profile'}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = Workspace(tmp_path_factory.mktemp("report"))
    layers = [LayerSensitivity(layer="conv2d_1.tmp_0", op_type="conv2d", error=0.25)]
    settings = results.settings(quantizable_op_type=["conv2d", "depthwise_conv2d"])
    trials = [results.trial(number, settings=settings) for number in range(2)]
    workspace.write(
        "ptq_search/trials.json", Trials(trials=trials, front=[0], sensitivity=layers, importance={"ptq_algo": 1.0})
    )
    workspace.write("analyze/analysis.json", results.analysis("depthwise_conv2d_transpose_12.tmp_0"))
    done = workspace.report(max_quality_drop=0.01)
    assert done.returncode == 0, done.stderr
    return workspace.deploy


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_sticks_out_to_the_right(deployed: Path, width: int, tmp_path: Path) -> None:
    wrapper = deployed / f"measure{width}.html"
    wrapper.write_text(MEASURE.format(width=width))
    shown = browse(tmp_path, "--dump-dom", wrapper.as_uri())
    match = re.search(r'<pre id="found">(.+?)</pre>', shown)
    assert match, shown[-500:]
    found = json.loads(match.group(1).replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
    assert found["width"] > 0.9 * width
    assert found["outside"] == [] and found["content"] <= found["width"]


def test_it_prints_on_a_few_pages(deployed: Path, tmp_path: Path) -> None:
    browse(tmp_path, f"--print-to-pdf={tmp_path / 'report.pdf'}", (deployed / "report.html").as_uri())
    pages = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes()))
    assert 1 <= pages <= 8


def test_it_asks_for_nothing(deployed: Path, tmp_path: Path) -> None:
    log = tmp_path / "net.json"
    page = (deployed / "report.html").as_uri()
    browse(tmp_path, f"--log-net-log={log}", "--dump-dom", page)
    asked = set(re.findall(r'"url":"((?:https?|file|ftp|wss?):[^"]*)"', log.read_text()))
    own = {url for url in asked if not re.match(r"https?://[^/]*google", url)}  # the browser's own errands
    assert own <= {page}
