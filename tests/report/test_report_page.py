"""The page and the figure: the data's numbers, harmless texts, and plain sentences for what is missing."""

import html
import json
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest
from synthetic_run import PHASES, RESULTS, eval_record, rollout, train_record, write_metrics, write_rollouts

from amrsd_jax import report
from amrsd_jax.report import page, rollouts
from amrsd_jax.report.read import read

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror=window.hacked=1>&amp;<!--"


def written(workdir):
    return report.write(workdir).read_text(encoding="utf-8")


def text_of(page_text):
    """The words of a page, without its tags, styles and scripts."""
    bare = re.sub(r"<(style|script|svg).*?</\1>", " ", page_text, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def samples_of(page_text):
    return json.loads(re.search(r'id="samples">(.*?)</script>', page_text, re.S)[1])


def charts_of(page_text):
    """{title: readout by x} of every chart of a page."""
    found = re.findall(r'aria-label="([^":]*):.*?data-hover="([^"]*)"', page_text)
    return {title: {stop[1]: dict(stop[2]) for stop in json.loads(html.unescape(h))} for title, h in found}


def test_headline_has_the_results(workdir):
    words = text_of(written(workdir))
    assert "amrsd on arithmetic" in words
    assert "20.4% → 61.8% interval 17.0% to 24.3%, then 57.4% to 66.0%; n = 500" in words
    assert "25.0% → 65.4%" in words and "Wall time 1 min 40 s 60 steps" in words and "37.5%" in words


def test_curves_hold_the_metrics(workdir):
    charts, run = charts_of(written(workdir)), read(workdir)
    assert len(charts) == 21 + 3
    record = run.train[7]
    assert charts["Entropy"]["step 7"]["entropy"] == f"{record['policy/entropy']:.4g}"
    reward, error = record["rollout/reward"], 1.96 * record["rollout/reward_sem"]
    assert charts["Reward"]["step 7"]["rollouts"] == f"{reward:.4g} ({reward - error:.4g} to {reward + error:.4g})"
    assert charts["Fallbacks by reason"]["step 0"] == {
        "empty": "0.7%", "leak": "4.2%", "no tag": "7%", "truncated": "2.1%"
    }  # fmt: skip
    assert charts["Accuracy"]["step 60"] == {
        "held-out, sampled": "61.8% (57.8% to 65.8%)", "held-out, greedy": "64.8% (60.8% to 68.8%)"
    }  # fmt: skip
    assert "step 55" not in charts["Teacher gap"]  # null after the annealing has ended


def test_a_long_run_is_thinned_to_means(tmp_path, rng):
    write_metrics(tmp_path, [train_record(s, rng, 1200) | {"policy/kl": s / 1000} for s in range(1200)])
    text = written(tmp_path)
    assert "Each point is the mean of about 3 steps." in text_of(text)
    kl = charts_of(text)["KL of old to new policy"]
    assert len(kl) == 400 and kl["step 1"] == {"KL": "0.001"}


def test_phases_and_ledger_add_up(workdir):
    words = text_of(written(workdir))
    for phase, seconds in PHASES.items():
        assert f"{phase} {seconds:g} s {seconds:.1f}%" in words
    assert "Each of 72 logged rollouts" in words
    entries = re.findall(r"(usable hint|usable critique|fallback: \w+ ?\w*|advantage 0[^%]*?) ([\d.]+)%", words)
    assert sum(float(share) for _, share in entries) == pytest.approx(100, abs=0.3)
    assert "other" not in words.split("Time Wall time")[1]


def test_the_first_a_middle_and_the_last_step_are_laid_out_in_time(workdir):
    charts = {title: stops for title, stops in charts_of(written(workdir)).items() if "in time" in title}
    assert list(charts) == ["Step 0 in time", "Step 30 in time", "Step 59 in time"]
    stops = charts["Step 30 in time"]
    assert len(stops) == 200
    both = {"rollouts": "16 of 32", "reflections": "12 of 32"}
    assert stops["4.22 s"] == {"phase": "sample, 0.01 s to 6 s", "host": "verify, 4 s to 4.5 s"} | both
    assert list(stops.values())[160] == {
        "phase": "learn, 7.75 s to 9.8 s",
        "rollouts": "0 of 32",
        "reflections": "0 of 32",
    }


def test_time_outside_all_phases_is_shown(workdir):
    (workdir / "results.json").write_text(json.dumps(RESULTS | {"wall_seconds": 125.0}))
    assert page.phases(read(workdir))[-1] == ("other", 25.0, 0.2)


def test_heat_map_holds_the_rows(workdir):
    samples = samples_of(written(workdir))
    assert [(s["step"], s["of"], len(s["rows"])) for s in samples] == [
        (0, 24, 12),
        (25, 24, 12),
        (45, 24, 12),
    ]
    shown = samples[1]["rows"]
    assert sum(row["correct"] for row in shown) == 6 and [r["row"] for r in shown] == sorted(r["row"] for r in shown)
    assert all(row["reflection_status"] == "ok" for row in shown)
    wanted = pq.read_table(workdir / "rollouts" / "step_00025.parquet").to_pylist()[shown[1]["row"]]
    assert shown[1]["tokens"] == wanted["token_text"] and shown[1]["length"] == 16
    for short, name in {"student": "logp_student", "gap": "gap", "credit": "token_advantage"}.items():
        assert shown[1][short] == pytest.approx(wanted[name], abs=1e-4)


def test_long_rows_are_cut_and_the_page_stays_small(workdir, rng):
    row = rollout(45, 1, rng)
    lists = {name: value * 200 for name, value in row.items() if isinstance(value, list)}
    for step in (0, 25, 45):
        write_rollouts(workdir, step, [row | lists | {"row": r} for r in range(64)])
    path = report.write(workdir)
    shown = samples_of(path.read_text())[0]["rows"]
    assert len(shown) == 12 and len(shown[0]["gap"]) == rollouts.TOKENS_SHOWN and shown[0]["length"] == 3200
    assert path.stat().st_size < 3e6


def test_hostile_texts_are_inert(workdir, rng):
    row = rollout(45, 1, rng)
    row |= {name: HOSTILE for name, value in row.items() if isinstance(value, str)}
    write_rollouts(workdir, 45, [row | {"token_text": [HOSTILE] * 16, "reflection_status": "ok"}])
    (workdir / "config.json").write_text(json.dumps({"method": HOSTILE, "task": HOSTILE}))
    text = written(workdir)
    assert "<img" not in text and "<script>window" not in text and "<!--" not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert samples_of(text)[-1]["rows"][0]["tokens"][0] == HOSTILE  # whole, yet inert
    assert HOSTILE in text_of(text)
    figure = ElementTree.parse(report.write_figure(workdir, workdir / "figure.svg"))
    assert not [node for node in figure.iter() if node.tag.endswith(("script", "img"))]


def test_the_page_loads_nothing(workdir):
    text = written(workdir)
    assert "default-src 'none'" in text
    addresses = set(re.findall(r"[a-z]+://[^\s\"')]+", text)) - {"http://www.w3.org/2000/svg"}
    assert not addresses and "@import" not in text and "url(" not in text
    assert set(re.findall(r'\s(?:src|href)="([^"#]*)', text)) <= {"data:,", ""}


MISSING = {
    "config.json": "There is no config.json in the workdir.",
    "results.json": "There is no results.json: the run is unfinished or was stopped.",
    "metrics.jsonl": "The run recorded no policy/entropy.",
    "timeline.jsonl": "There is no timeline.jsonl with a step in it",
    "rollouts": "No rollouts could be read from rollouts/step_*.parquet",
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_part_is_explained(workdir, name):
    assert MISSING[name] not in text_of(written(workdir))
    shutil.rmtree(workdir / name) if name == "rollouts" else (workdir / name).unlink()
    assert MISSING[name] in text_of(written(workdir))
    assert "Accuracy over training" in report.write_figure(workdir, workdir / "f.svg").read_text()


def test_an_empty_workdir_has_only_sentences(tmp_path):
    text = written(tmp_path)
    assert "<svg" not in text and all(sentence in text_of(text) for sentence in MISSING.values())
    figure = report.write_figure(tmp_path, tmp_path / "f.svg").read_text()
    assert "The run recorded no accuracy." in figure and "No logged rollout has a usable" in figure


def test_an_unfinished_run_shows_its_last_evaluation(workdir, rng):
    (workdir / "results.json").unlink()
    write_metrics(workdir, [eval_record(0, 0.2), train_record(0, rng)])
    words = text_of(written(workdir))
    assert "Held-out accuracy, sampled 20.0% interval 16.0% to 24.0%" in words and "Steps so far 1" in words


def test_best_and_mean_and_other_benchmarks_are_told(workdir):
    results = json.loads((workdir / "results.json").read_text())
    best = {"step": 40, "sampled": 0.7, "greedy": 0.6}
    mean = {"steps": [40, 60], "sampled": 0.65, "greedy": 0.55}
    four = results["eval"] | {"best": best, "mean_of_last": mean}
    results["eval"] = four | {"best_by_validation": best | {"sampled": 0.66}, "benchmarks": {"aime24": four}}
    (workdir / "results.json").write_text(json.dumps(results))
    words = text_of(written(workdir))
    assert "n = 500; 70.0% at the best step, 40; 66.0% at the best by validation, 40; 65.0% mean of the last 2" in words
    assert "aime24, sampled 20.4% → 61.8%" in words and "60.0% at the best step, 40" in words


def test_rows_without_a_teacher_pass_are_shown(workdir, rng):
    columns = ("logp_student", "logp_teacher", "gap", "entropy")
    rows = [rollout(45, r, rng) | dict.fromkeys(columns) for r in range(4)]
    for step in (0, 25, 45):
        write_rollouts(workdir, step, rows)
    text = written(workdir)
    assert "No logged rollout was scored by a teacher." in text_of(text)
    assert samples_of(text)[0]["rows"][0]["gap"] is None


def test_an_unreadable_rollout_file_is_noted(workdir):
    (workdir / "rollouts" / "step_00025.parquet").write_bytes(b"PAR1 half a file")
    text = written(workdir)
    assert "rollouts/step_00025.parquet was left out" in text_of(text) and len(samples_of(text)) == 2


def test_the_figure_has_both_halves(workdir):
    path = workdir / "figure.svg"
    assert report.write_figure(workdir, path) == path
    tree = ElementTree.parse(path)
    texts = [node.text for node in tree.iter() if node.text]
    assert {"Failed rollout", "Successful rollout", "true first wrong step", "rollouts"} <= set(texts)
    kinds = [node.get("class", "") for node in tree.iter()]
    # 16 tokens a rollout and a sample of each colour in the legend; one outlined line and its sample.
    assert kinds.count("blame-fill") + kinds.count("credit-fill") == 2 * 16 + 2 and kinds.count("wrong") == 2
    assert kinds.count("whisker s2") == kinds.count("whisker s3") == 4
    assert "var(--" not in path.read_text()


def test_a_long_rollout_is_shown_around_its_first_wrong_step(workdir, rng):
    row = rollout(45, 1, rng)
    row["token_text"] = [f"{i}\n" for i in range(16)]
    write_rollouts(workdir, 45, [row | {"reflection_status": "ok", "first_error_start": 9, "first_error_end": 11}])
    for step in (0, 25):
        write_rollouts(workdir, step, [rollout(step, 5, rng) | {"reflection_status": "not_needed"}])
    text = report.write_figure(workdir, workdir / "f.svg").read_text()
    letters = [node.text for node in ElementTree.fromstring(text).iter() if node.get("class") == "code"]
    assert "lines 9 to 14, step 45" in text and [t for t in letters if t != "↵"] == [str(i) for i in range(8, 14)]


def test_command_line(workdir):
    command = [sys.executable, "-m", "amrsd_jax.report", f"--workdir={workdir}", f"--figure={workdir}/f.svg"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"{workdir}/report.html", f"{workdir}/f.svg"]
    assert (workdir / "report.html").exists() and (workdir / "f.svg").exists()
