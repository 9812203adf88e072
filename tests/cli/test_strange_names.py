"""Names from outside are shown escaped, wherever the command writes them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import repsim
from cli.tiny_models import NAMES
from repsim.report import load_results

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]")
ESCAPED = (
    r"\x1b]0;X\x07\x1b[31mred",
    r"line\nline",
    r"\udcff",
    r"\u202eright",
    "café",
    r"\x7f\x9b",
)
COMPARED = ("compare", "cli.tiny_models:strange", "--data", "inputs.npz", "--no-progress")


def harmless(ran):
    # A progress bar is written over itself.
    err = re.sub(r"[^\n]*\r", "", ran.err)
    assert not OBEYED.search(ran.out + err), (ran.out, err)
    return ran


def test_layers_in_tables_json_page_and_result(repsim_command, inputs):
    ran = harmless(repsim_command(*COMPARED, "--out", "run"))
    assert ran.code == 0, ran.err
    assert all(name in ran.out for name in ESCAPED)
    assert load_results("run")["compare"].layer_x.values.tolist() == list(NAMES)
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert not OBEYED.search(page)
    assert ESCAPED[0] in page
    ran = harmless(repsim_command(*COMPARED, "--json"))
    assert ran.json["coords"]["layer_x"]["data"] == list(NAMES)


def test_names_in_warnings_and_errors(repsim_command, inputs):
    ran = harmless(repsim_command("compare", "cli.tiny_models:constant", *COMPARED[2:]))
    assert ran.code == 0, ran.err
    assert r"warning: " in ran.err
    assert ESCAPED[0] in ran.err
    for argv in (
        (*COMPARED, "--layers", NAMES[0] + "x"),
        (*COMPARED[:3], NAMES[0] + "y"),
        (*COMPARED, "--" + NAMES[0]),
        (*COMPARED, "--limit", NAMES[0]),
        (*COMPARED, "--on-bad-image", NAMES[1]),
        ("compare", "cli." + NAMES[0] + ":f", *COMPARED[2:]),
        ("compare", NAMES[1], *COMPARED[2:]),
        ("--" + NAMES[0],),
        (NAMES[0],),
        ("measure", NAMES[1] + ".npy", NAMES[0]),
        ("report", NAMES[2]),
    ):
        ran = harmless(repsim_command(*argv))
        assert ran.code == 2, (argv, ran.err)
        # typer does not repeat a number that it cannot read
        assert "--limit" in argv or any(name in ran.err for name in ESCAPED), (argv, ran.err)


def test_a_name_cannot_begin_a_line(repsim_command, inputs):
    ran = repsim_command("compare", "timm:a\nerror: b", *COMPARED[2:])
    assert r"a\nerror: b" in ran.err
    assert "\nerror: b" not in ran.err


def test_images_whose_names_are_not_utf8(repsim_command, tmp_path):
    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    for kind in (b"\xfe", "é".encode()):
        place = Path(os.fsdecode(os.fsencode(folder) + b"/" + kind))
        try:
            place.mkdir(parents=True)
        except OSError:
            pytest.skip("the file system takes names in UTF-8 alone")
        for number in range(5):
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / os.fsdecode(b"\xff%d.png" % number))
    (place / os.fsdecode(b"\xffbad.png")).write_bytes(b"no image")
    argv = ("compare", "cli.tiny_models:cnn", "--size", 16, "--data", folder, "--layers", "4")
    ran = harmless(repsim_command(*argv, "--out", "run"))
    assert ran.code == 0, ran.err
    assert r"é/\udcffbad.png" in ran.err
    assert load_results("run")["compare"].attrs["n_samples"] == 10
    assert not OBEYED.search(Path("run/report.html").read_text(encoding="utf-8"))
    ran = harmless(repsim_command(*argv, "--on-bad-image", "error"))
    assert ran.code == 1
    assert r"\udcffbad.png" in ran.err


def test_a_model_that_ends_the_program(repsim_command, inputs):
    for name, said in (("ending", "SystemExit(7)"), ("ending_late", "SystemExit(None)")):
        ran = repsim_command("compare", f"cli.tiny_models:{name}", *COMPARED[2:])
        assert ran.code == 1, ran.err
        assert f"the code of a model ended the program with {said}" in ran.err


def test_a_reader_that_ends_early_is_no_error_of_a_model(tmp_path):
    command = [sys.executable, "-m", "repsim", "measure", "--help"]
    path = str(Path(repsim.__file__).parents[1])
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    process.stdout.close()
    assert "error" not in process.stderr.read()
    process.stderr.close()
    process.wait()


@pytest.mark.slow
def test_an_output_in_ascii(tmp_path, inputs):
    here = [Path(__file__).parents[1], Path(repsim.__file__).parents[1]]
    ran = subprocess.run(
        [sys.executable, "-m", "repsim.cli", *COMPARED],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, here)),
            "PYTHONIOENCODING": "ascii",
        },
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert r"caf\xe9" in ran.stdout
