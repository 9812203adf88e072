"""The paper, end to end.

    python -m raghu2021 --out paper-output                          # trains its own small models
    python -m raghu2021 --models timm:vit_base_patch32_224 timm:resnet50 --data imagenet/val
                        --device cuda --out paper-imagenet

Finished steps are on disk and do not run again: run the same command to resume.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from time import perf_counter

try:
    import matplotlib
    import skimage
    import sklearn
    import timm
    import torch

    import repsim
    from raghu2021 import images, pretrained, trained
    from raghu2021.lab import Crops, Effort, Lab
    from raghu2021.models import FULL, QUICK
    from raghu2021.report import Shown, markdown, page, plain
    from raghu2021.run import measuring, report_on
    from raghu2021.steps import digest, run_steps
except ModuleNotFoundError as error:
    sys.exit(
        f"raghu2021: {error.name} is not installed.\n"
        f"  Install the library with what this needs, from the root of the checkout:\n"
        f"  python -m pip install -e '.[paper]'"
    )

QUICK_EFFORT = Effort(
    cka_images=64,
    cka_batch=32,
    cka_passes=1,
    distance_images=16,
    field_images=2,
    field_probes=2,
    ratio_images=16,
    place_images=32,
    place_batch=16,
    probe_shots=5,
    probe_images=64,
)
STEPS = {"photographs": 600, "digits": 400}
QUICK_STEPS = 4
MODELS_EFFORT = Effort(
    cka_images=10240,
    cka_batch=256,
    cka_passes=1,
    distance_images=5000,
    ratio_images=1024,
    place_images=2048,
    place_batch=512,
    probe_images=5000,
)


def main(argv: list[str] | None = None) -> int:
    """Run the requested experiments; return the exit status."""
    options = parse(argv)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    began = perf_counter()
    labs = given(options) if options.models else embedded(options)

    steps = [step for lab in labs for step in measuring(lab)]
    # Models by name may be large, and on one device: these go one after another.
    workers = 1 if options.models else options.threads
    seconds = run_steps(steps, progress=options.progress, workers=workers)
    shown = [report_on(lab, draw=options.pictures) for lab in labs]
    details = {
        "command": "python -m raghu2021 " + " ".join(sys.argv[1:]),
        "versions": f"repsim {repsim.__version__}, torch {torch.__version__}, timm "
        f"{timm.__version__}, scikit-image {skimage.__version__}, scikit-learn "
        f"{sklearn.__version__}, matplotlib {matplotlib.__version__}, Python "
        f"{platform.python_version()}",
        **{f"images, {lab.data.name}": json.dumps(lab.effort.settings) for lab in labs},
    }
    write(options.out, shown, details)
    print(plain(shown))
    print(f"\nPage:     {options.out / 'index.html'}\nTable:    {options.out / 'findings.md'}")
    print(f"Pictures and results: {', '.join(str(lab.folder) for lab in labs)}")
    slowest = sorted(seconds.items(), key=lambda item: -item[1])[:3]
    if slowest:
        words = ", ".join(f"{name} {value:.0f} s" for name, value in slowest)
        print(f"Longest:  {words}")
    print(f"Done in {perf_counter() - began:.0f} s.")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        prog="python -m raghu2021",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("paper-output"), help="folder to write to")
    add("--images", nargs="+", choices=("photographs", "digits"), default=["photographs", "digits"],
        help="images to train on and to measure (both)")  # fmt: skip
    add("--quick", action="store_true", help="tiny models that learn nothing, to test the code")
    add(
        "--threads",
        type=int,
        default=os.cpu_count() or 1,
        help="number of steps that run at the same time (all processors)",
    )
    add("--no-progress", dest="progress", action="store_false", help="show no progress bar")
    add(
        "--no-pictures",
        dest="pictures",
        action="store_false",
        help="write results and findings, but no pictures",
    )
    given = parser.add_argument_group("models by name, on your own images, without training")
    add = given.add_argument
    add("--models", nargs="+", metavar="NAME", help="timm:NAME or torchvision:NAME")
    add("--data", type=Path, metavar="FOLDER", help="one folder of images per class")
    add("--random", action="store_true", help="use random weights and download nothing")
    add("--side", type=int, default=224, help="height and width of the images in pixels (224)")
    add(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="device that the models run on",
    )
    add("--workers", type=int, default=0, help="processes that decode images (0)")
    options = parser.parse_args(argv)
    if bool(options.models) != (options.data is not None):
        parser.error("--models and --data need each other")
    if options.data is not None and not options.data.is_dir():
        parser.error(f"--data {options.data} is not a folder")
    for name in ("threads", "side"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    return options


def embedded(options: argparse.Namespace) -> list[Lab]:
    """Train the missing models on images that come with packages."""
    size, effort = (QUICK, QUICK_EFFORT) if options.quick else (FULL, Effort())
    steps, later = [], []
    for name in options.images:
        few = {"blocks": 3} if options.quick and name == "photographs" else {}
        data = getattr(images, name)(**few)
        key = digest(name, few, [Path(images.__file__)])
        folder = options.out / name
        count = QUICK_STEPS if options.quick else STEPS[name]
        inner = options.progress and options.threads == 1
        steps += trained.training(data, key, folder, size, count, progress=inner)
        later.append((data, key, folder, count))
    run_steps(steps, progress=options.progress, workers=options.threads)
    return [
        Lab(Crops(data, key), folder, trained.subjects(data, key, folder, size, count), effort)
        for data, key, folder, count in later
    ]


def given(options: argparse.Namespace) -> list[Lab]:
    """Take models by name and images from a folder."""
    effort = QUICK_EFFORT if options.quick else MODELS_EFFORT
    data = pretrained.Folder(
        options.data, options.side, shots=effort.probe_shots, workers=options.workers
    )
    subjects = pretrained.subjects(options.models, random=options.random)
    return [Lab(data, options.out / data.name, subjects, effort, options.device)]


def write(out: Path, shown: list[Shown], details: dict[str, str]) -> None:
    """Write the page and the tables."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.html").write_text(page(shown, details), encoding="utf-8")
    (out / "findings.md").write_text(markdown(shown, details), encoding="utf-8")
    table = {each.name: [vars(finding) for finding in each.findings] for each in shown}
    text = json.dumps(table, indent=1, ensure_ascii=False)
    (out / "findings.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
