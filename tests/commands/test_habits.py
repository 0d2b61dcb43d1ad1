"""What people type from habit: either spelling of an option, options between words, names of models, completion."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import dermafuse
from dermafuse.api.run import model_path
from dermafuse.cli import main, parser
from dermafuse.runtime.released import model_folder, released_bundle
from tiny_bundle import tiny_bundle, tiny_image


def verbs() -> dict[str, argparse.ArgumentParser]:
    (choices,) = (a.choices for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(choices)


#: A command of each verb that has an output, and of each that has data, up to the word in question.
OUTPUTS = {
    "fetch": ["ham10000"],
    "train": ["--data", "d"],
    "evaluate": ["R", "--data", "d"],
    "compare": ["A", "B"],
    "predict": ["i.png"],
    "explain": ["i.png"],
    "export": ["R", "--format", "onnx"],
    "release": ["F"],
    "demo": [],
}
DATA = {
    "train": ["--out", "o"],
    "evaluate": ["R", "--out", "o"],
    "check": [],
    "extract": [],
    "init": [],
    "report": ["R"],
    "export": ["R", "--format", "onnx", "--to", "o"],
    "fetch": ["ham10000"],
}


def test_the_lists_of_this_file_are_those_of_the_parser() -> None:
    known = {name: verb._option_string_actions for name, verb in verbs().items()}
    assert {name for name, options in known.items() if {"--out", "--to"} & options.keys()} == OUTPUTS.keys()
    assert all({"--out", "--to"} <= known[name].keys() for name in OUTPUTS)
    assert {name for name, options in known.items() if "--data" in options} == {*DATA, "compare", "predict"}


@pytest.mark.parametrize("verb", OUTPUTS)
def test_out_and_to_are_one_option_and_may_not_contradict(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    dest = "to" if verb in ("fetch", "export", "release") else "out"
    for spelling in ("--out", "--to"):
        found = parser().parse_args([verb, *OUTPUTS[verb], spelling, "place"])
        assert getattr(found, dest) == Path("place")
    again = parser().parse_args([verb, *OUTPUTS[verb], "--out", "first", "--out", "x", "--to", "x"])
    assert getattr(again, dest) == Path("x")  # repeated, the last counts, as ever
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args([verb, *OUTPUTS[verb], "--out", "here", "--to", "there"])
    assert stopped.value.code == 2
    assert "--out says 'here' and --to says 'there'; give one of them." in capsys.readouterr().err


@pytest.mark.parametrize("verb", DATA)
def test_data_are_named_at_their_place_or_as_an_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    dest = "to" if verb == "fetch" else "data"
    for words in (["place"], ["--data", "place"], ["--debug", "place"], ["--data", "place", "place"]):
        assert str(getattr(parser().parse_args([verb, *DATA[verb], *words]), dest)) == "place"
    with pytest.raises(SystemExit):
        parser().parse_args([verb, *DATA[verb], "here", "--data", "there"])
    assert "'here'" in (said := capsys.readouterr().err)
    assert "'there'; give one of them." in said or "'here'; give one of them." in said
    if verb in ("evaluate", "check", "init", "fetch"):
        with pytest.raises(SystemExit):
            parser().parse_args([verb, *DATA[verb]])
        assert "named; add" in capsys.readouterr().err


def test_options_may_stand_between_the_words_of_a_verb() -> None:
    found = parser().parse_args(["predict", "RUN", "--json", "a.png", "--age", "55", "b.png"])
    assert (found.paths, found.json, found.age) == ([Path("RUN"), Path("a.png"), Path("b.png")], True, "55")
    assert parser().parse_args(["predict", "RUN", "--", "-odd.png"]).paths == [Path("RUN"), Path("-odd.png")]


def test_models_are_listed_by_name_and_a_name_is_taken_for_a_path(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = released_bundle().name
    assert main(["models"]) == 0
    assert name in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["name"], Path(listed["path"])) == (name, released_bundle())
    monkeypatch.chdir(tmp_path)
    assert model_folder(name) == model_folder() == released_bundle()
    tiny_bundle(tmp_path / name)  # what is there comes first
    assert model_folder(name) == Path(name)
    assert model_folder("nowhere") == Path("nowhere")


def test_every_verb_that_takes_a_model_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tiny_bundle(tmp_path / "models" / "tiny")
    monkeypatch.setattr("dermafuse.runtime.released.released_models", lambda: {"tiny": bundle})
    monkeypatch.chdir(tmp_path)
    Image.fromarray(tiny_image()).save("lesion.png")
    for verb in ("predict", "explain"):
        assert main([verb, "tiny", "lesion.png", "--json"]) == 0
        assert str(bundle) in capsys.readouterr().out
    assert model_path("tiny") == bundle  # evaluate, export and their like in Python
    assert dermafuse.load("tiny").bundle.path == bundle


def test_predict_reads_a_data_set_as_its_own_description_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tiny_bundle(tmp_path / "RUN" / "model")
    for number in range(3):
        path = tmp_path / "clinic" / "pictures" / f"p{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiny_image(number)).save(path)
    (tmp_path / "clinic" / "cases.csv").write_text("bild,alter,geschlecht\np0,50,M\np1,,W\ngone,60,M\np2,61,\n")
    description = tmp_path / "clinic" / "dermafuse.toml"
    description.write_text(
        'table = "cases.csv"\nimage = "bild"\nimages = "pictures"\nnumeric = { age = "alter" }\n'
        'categorical = { sex = "geschlecht" }\n[values.sex]\nM = "male"\nW = "female"\n'
    )
    for data in (tmp_path / "clinic", description):
        out = tmp_path / f"{data.name}.csv"
        assert (
            main(["predict", str(tmp_path / "RUN"), "--data", str(data), "--out", str(out), "--precision", "f32"]) == 0
        )
        table = pd.read_csv(out).set_index("image")
        assert list(table.index) == ["p0", "p1", "p2", "gone"]
        assert table.loc["gone", "error"] == "image file not found"
        assert table["missing"].tolist()[:3] == ["localization", "age|localization", "sex|localization"]
        model = dermafuse.load(bundle, precision="f32", mode="throughput")
        known = model.predict(tmp_path / "clinic/pictures/p1.png", sex="female")
        assert table.loc["p1", "p_mel"] == pytest.approx(known.probabilities["mel"], rel=1e-5)
    capsys.readouterr()
    refused = (["--column", "age=alter"], "--column belongs to --csv"), (["--age", "5"], "'age' belongs to --csv")
    for words, said in (*refused, (["--csv", "t.csv"], "one of them")):
        assert main(["predict", str(tmp_path / "RUN"), "--data", str(description), "--out", "o.csv", *words]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash")
def test_the_completion_of_bash_completes_verbs_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)

    def completed(*words: str) -> list[str]:
        code = (
            f"compopt() {{ :; }}; source {script}; COMP_WORDS=(dermafuse {' '.join(words)}); "
            f"COMP_CWORD={len(words)}; _shtab_dermafuse; echo ${{COMPREPLY[@]}}"
        )
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert completed("pre") == ["predict"]
    assert "--localization" in completed("predict", "--loc")
    assert completed("train", "--split", "le") == ["lesion"]
    for shell in ("zsh", "tcsh"):
        assert main(["completion", shell]) == 0
        assert "predict" in capsys.readouterr().out
