"""The page and the figure: the run's numbers are on it, texts of a model are inert, and it stays small."""

import base64
import dataclasses
import html
import json
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from synthetic_run import CONFIG, RESULTS, eval_record, rollout, train_record, write_lines, write_rollouts
from test_report_charts import rows_with, stops

from amrsd_jax import report
from amrsd_jax.report import charts, curves, page, tokens
from amrsd_jax.report.read import read

pytestmark = pytest.mark.slow  # a page draws all charts

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror=window.hacked=1>&amp;<!--"


def written(workdir):
    return report.write(workdir).read_text(encoding="utf-8")


def text_of(page_text):
    """The words of a page, without its tags, styles and scripts."""
    bare = re.sub(r"<(style|script).*?</\1>", " ", page_text, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def samples_of(page_text):
    return json.loads(re.search(r'id="samples">(.*?)</script>', page_text, re.S)[1])


def unpacked(column):
    scale, packed = column
    return scale * np.frombuffer(base64.b64decode(packed), "<i2")


def plot(workdir, title):
    drawn = next(plot for group in curves.GROUPS.values() for plot in group if plot.title == title)
    return curves.draw(drawn, read(workdir))


def test_the_head_has_the_results_and_what_the_run_ran_on(finished):
    words = text_of((finished / "report.html").read_text())
    for text in (
        "amrsd on arithmetic",
        "20.4% → 61.8%",
        "17.0% to 24.3%",
        "25.0% → 65.4%",
        "1 min 40 s",
        "37.5%",
        "n = 500",
    ):
        assert text in words
    for text in ("2 x cpu", "jax 0.10.2", "commit 0123456789ab+", "2026-01-02"):
        assert text in words


def test_curves_hold_the_metrics(finished):
    assert stops(plot(finished, "Entropy"))["7"] == {"entropy": charts.number(0.9 - 0.07)}
    assert stops(plot(finished, "Accuracy"))["40"] == {
        "rollouts": "60% (56% to 64%)", "held-out, sampled": "60% (56% to 64%)", "held-out, greedy": "63%"
    }  # fmt: skip
    assert "35" not in stops(plot(finished, "Teacher gap"))  # null after the last reflection
    assert stops(plot(finished, "Unusable reflections by reason"))["1"] == {
        "no tag": "10%",
        "leak": "2%",
    }  # none was empty
    assert list(stops(plot(finished, "Response length"))["1"].values()) == ["42 (30 to 60)"]
    assert plot(finished, "KL to the reference policy") is None  # not recorded


def test_rare_reasons_are_summed(workdir):
    lines = [train_record(1) | {f"reflection/unusable_r{i}": 0.01 * i for i in range(1, 8)}]
    write_lines(workdir / "metrics.jsonl", lines)
    found = stops(plot(workdir, "Unusable reflections by reason"))["1"]
    assert (
        found["other reasons"] == charts.number(0.01 + 0.02 + 0.02 + 0.03, percent=True)
        and len(found) == curves.REASONS + 1
    )


def test_a_long_run_is_thinned_to_means(tmp_path):
    write_lines(tmp_path / "metrics.jsonl", [train_record(s) | {"grad_norm": s / 1000} for s in range(1200)])
    rows = rows_with(plot(tmp_path, "Gradient norm"), "series")
    assert len(rows) == 400 and rows[1]["x"] == 4 and rows[1]["y"] == pytest.approx(0.004)
    assert list(stops(plot(tmp_path, "Response length"))["4"].values()) == ["42 (30 to 60)"]  # the lowest, the highest
    assert stops(plot(tmp_path, "Accuracy"))["4"] == {"rollouts": "24%"}  # its interval is not the mean of theirs


def test_time_outside_all_phases_is_shown(workdir):
    (workdir / "results.json").write_text(json.dumps(RESULTS | {"wall_seconds": 125.0}))
    values = rows_with(page.phase_chart(read(workdir)), "name", "value")
    assert values[-1]["name"] == "other" and values[-1]["value"] == 25 and sum(row["value"] for row in values) == 125


def test_the_heat_map_has_every_rollout_whole(finished):
    found = samples_of((finished / "report.html").read_text())
    assert [(step["step"], step["of"], len(step["rows"])) for step in found["steps"]] == [
        (1, 24, 24),
        (20, 24, 24),
        (40, 24, 24),
    ]
    shown = found["steps"][1]["rows"]
    assert [row["reflection_status"] == "ok" for row in shown] == [True] * 12 + [False] * 12
    rows = pq.read_table(finished / "rollouts" / "step_00020.parquet").to_pylist()
    for row in shown:
        wanted = rows[row["row"]]
        assert row["tokens"] == wanted["token_text"]
        for name, column in tokens.TOKEN_COLUMNS.items():
            assert (
                row[name] is None
                if wanted[column] is None
                else unpacked(row[name]) == pytest.approx(wanted[column], abs=1e-4)
            )
    assert found["reach"]["gap"] > 1 and found["reach"]["weight"] > 0.1


def test_colours_of_gaps_do_not_saturate_below_tau(workdir, rng):
    for step in (1, 20, 40):
        write_rollouts(workdir, step, [rollout(step, 0, rng) | {"gap": [0.002] * 16}])
    assert samples_of(written(workdir))["reach"]["gap"] == CONFIG["credit"]["args"]["tau"]
    without = CONFIG | {"credit": {"rule": "amrsd", "args": {"tau": 0.0}}}
    (workdir / "config.json").write_text(json.dumps(without))
    assert samples_of(written(workdir))["reach"]["gap"] == pytest.approx(0.002)


def test_the_page_of_long_rollouts_stays_small(long):
    first, last = samples_of(long.read_text())["steps"]
    assert (first["step"], last["step"]) == (1, 40) and len(first["rows"]) == len(last["rows"]) == 300_000 // 8192
    assert len(first["rows"][0]["tokens"]) == 8192
    assert long.stat().st_size < 25e6


def test_hostile_texts_are_inert(workdir, rng):
    row = {name: HOSTILE if isinstance(value, str) else value for name, value in rollout(40, 1, rng).items()}
    token = HOSTILE + "\x1b\ufffe"  # which XML cannot hold
    write_rollouts(workdir, 40, [row | {"token_text": [token] * 16, "reflection_status": "ok"}])
    config = CONFIG | {"task": {"name": HOSTILE}, "credit": {"rule": HOSTILE}}
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "environment.json").write_text(json.dumps({"devices": HOSTILE}))
    metrics = [train_record(1) | {f"reflection/unusable_{HOSTILE}": 0.5}]
    write_lines(workdir / "metrics.jsonl", metrics)
    text = written(workdir)
    markup = text[: text.rindex("<script>")]  # what stands before the page's own script
    assert "<img" not in markup and "<script>" not in markup and "<!--" not in markup
    assert samples_of(text)["steps"][-1]["rows"][0]["tokens"][0] == token  # whole, yet inert
    assert HOSTILE in text_of(text)
    for step in (1, 20):  # the figure shows the first step that has a failed and a correct rollout
        (workdir / "rollouts" / f"step_{step:05}.parquet").unlink()
    nodes = list(ElementTree.parse(report.write_figure(workdir, workdir / "figure.svg")).iter())
    assert not [node for node in nodes if node.tag.endswith(("script", "img"))]
    assert "<img" in "".join(node.text for node in nodes if node.get("textLength"))


def test_the_page_loads_nothing_and_compiles_no_code(finished):
    text = (finished / "report.html").read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy and "script-src 'sha256-" in policy
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert set(re.findall(r'\s(?:src|href)="([^"#]*)', markup)) <= {"data:,", ""} and "@import" not in text


@pytest.mark.parametrize("names", [("config", "environment", "results", "timeline"), ("metrics", "rollouts")])
def test_missing_files_are_tolerated(workdir, names):
    for name in names:
        shutil.rmtree(workdir / name) if name == "rollouts" else next(workdir.glob(f"{name}.json*")).unlink()
    assert "<h1>" in written(workdir)


def test_an_empty_workdir_has_no_chart(tmp_path):
    text = written(tmp_path)
    assert '<div class="chart">' not in text and "<h1>" in text
    ElementTree.parse(report.write_figure(tmp_path, tmp_path / "f.svg"))


def test_an_unreadable_rollout_file_is_left_out(workdir):
    (workdir / "rollouts" / "step_00020.parquet").write_text("no Parquet")
    text = written(workdir)
    assert [step["step"] for step in samples_of(text)["steps"]] == [1, 40] and "step_00020" in text_of(text)


def test_an_unfinished_run_shows_its_last_evaluation(workdir):
    (workdir / "results.json").unlink()
    write_lines(workdir / "metrics.jsonl", [eval_record(0, 0.2), train_record(1)])
    tiles = {label: value for label, value, _ in page.tiles(read(workdir))}
    assert tiles["Held-out accuracy, sampled"] == "20.0%" and tiles["Steps so far"] == "1"


def test_an_interrupted_run_shows_its_last_evaluation_too(workdir):
    """Its results name no final one. The head says that it is not at its end."""
    (workdir / "config.json").write_text(json.dumps(CONFIG | {"steps": 60}))
    results = {**RESULTS, "eval": {"initial": RESULTS["eval"]["initial"], "final": None, "benchmarks": {}}}
    (workdir / "results.json").write_text(json.dumps(results))
    run = read(workdir)
    tiles = {label: value for label, value, _ in page.tiles(run)}
    assert tiles["Held-out accuracy, sampled"].split(" → ")[1] == f"{100 * run.evals[-1]['eval/sampled']:.1f}%"
    assert "The run ended at step 40 of 60." in run.notes


def test_the_last_step_is_on_a_page_that_cannot_hold_all(workdir, monkeypatch):
    """24 rollouts of 16 tokens a step: half a page of 640 tokens holds 20 of the first step, and as many of the last."""
    monkeypatch.setattr(tokens, "TOKENS_MOST", 640)
    run = read(workdir)
    shown, notes = tokens.heat_map(run.rollouts, 0.2)
    rows = {step["step"]: len(step["rows"]) for step in shown["steps"]}
    assert set(rows) == {1, 40} and set(rows.values()) == {20}
    assert any("leaves out 1 of 3 steps" in note for note in notes)


def test_a_mixture_of_many_sets_has_curves_of_the_largest(workdir):
    run = read(workdir)
    sets = {f"set {i}": {"share": float(i)} for i in range(1, 15)}
    train = [line | {f"reward/{name}/accuracy": 0.5 for name in sets} for line in run.train]
    run = dataclasses.replace(run, config={"task": {"name": "mixture", "args": sets}}, train=train)
    drawn = curves.series(curves.GROUPS["Data sets"][0], run)
    assert (
        len(drawn) == 12
        and {"set 14", "set 3"} <= {one.name for one in drawn}
        and "set 2" not in {one.name for one in drawn}
    )
    assert "without a curve are set 2, set 1." in text_of(page.render(run))


def test_benchmarks_and_metrics_that_only_the_rule_knows_have_charts(workdir):
    run = read(workdir)
    train = [line | {"credit/surprise": 0.25, "credit/null_gap_failed": -0.1} for line in run.train]
    evals = [line | {"eval/aime/sampled": 0.2, "eval/aime/sampled_low": 0.1} for line in run.evals]
    plain, run = run, dataclasses.replace(run, train=train, evals=evals)
    drawn = {plot.title: curves.series(plot, run) for group in curves.groups(run).values() for plot in group}
    assert [(one.name, set(one.y)) for one in drawn["Accuracy on benchmarks, sampled"]] == [("aime", {0.2})]
    assert [set(one.y) for one in drawn["credit/surprise"]] == [{0.25}]
    assert -0.1 in {y for one in drawn["Teacher gap"] for y in one.y}
    titles = {plot.title for group in curves.groups(plain).values() for plot in group}
    assert "credit/surprise" not in titles and not any("benchmarks" in title or "by set" in title for title in titles)


def test_the_figure_has_both_halves(workdir):
    text = report.write_figure(workdir, workdir / "figure.svg").read_text()
    assert text == report.write_figure(workdir, workdir / "figure.svg").read_text()
    nodes = list(ElementTree.fromstring(text).iter())
    letters = "".join(node.text for node in nodes if node.get("textLength"))
    rows = pq.read_table(workdir / "rollouts" / "step_00001.parquet").to_pylist()
    assert letters == "".join(rows[i]["response"].replace("\n", "↵") for i in (1, 0))
    fills = [node for node in nodes if node.get("fill") in map(charts.colour, ("blame-fill", "credit-fill"))]
    assert len(fills) == 2 * 16 + 2  # each token, and the legend


def test_a_long_rollout_is_shown_around_its_first_wrong_step(workdir, rng):
    row = rollout(40, 1, rng)
    row["token_text"] = [f"{i}\n" for i in range(16)]
    write_rollouts(workdir, 40, [row | {"first_error_start": 9, "first_error_end": 11}])
    for step in (1, 20):
        write_rollouts(workdir, step, [rollout(step, 6, rng)])  # needs no reflection
    text = report.write_figure(workdir, workdir / "f.svg").read_text()
    letters = [node.text for node in ElementTree.fromstring(text).iter() if node.get("textLength")]
    assert "lines 9 to 14, step 40" in text and [t for t in letters if t != "↵"] == [str(i) for i in range(8, 14)]


def test_command_line(workdir):
    command = [sys.executable, "-m", "amrsd_jax.report", f"--workdir={workdir}", f"--figure={workdir}/f.svg"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"{workdir}/report.html", f"{workdir}/f.svg"]
    assert (workdir / "report.html").exists() and (workdir / "f.svg").exists()
    (workdir / "metrics.jsonl").write_text("{}{}\n{}\n")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "metrics.jsonl" in done.stderr and "Traceback" not in done.stderr
