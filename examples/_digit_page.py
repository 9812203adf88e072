"""One self-contained page, and the same findings as plain text."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

import xarray as xr
from matplotlib.figure import Figure

from _digit_findings import HOLDS, Finding

__all__ = ["Picture", "page", "plain", "summary"]

LEARNED = 0.9
"""Test accuracy below which a model has learned too little to show effects of training."""


@dataclass(frozen=True)
class Picture:
    """A drawn figure, the name of its file, and its description."""

    name: str
    figure: Figure
    alt: str

    @cached_property
    def png(self) -> bytes:
        """The figure as a PNG file."""
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=200, bbox_inches="tight", pad_inches=0.05)
        return file.getvalue()

    @property
    def html(self) -> str:
        """The figure as an element with embedded data."""
        data = base64.b64encode(self.png).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{escape(self.alt)}">'


def plain(n: Mapping[str, float], found: Sequence[Finding]) -> str:
    """Return the findings as text for a terminal."""
    shown = {name: _text(name, n) for name in n}
    lines = []
    for finding in found:
        lines.append(f"{finding.verdict.upper():<15}{finding.claim}")
        measured = finding.measured.format_map(shown)
        lines += textwrap.wrap(measured, 96, initial_indent=" " * 15, subsequent_indent=" " * 15)
    return "\n".join([*_unlearned(n), *lines, "", summary(found)])


def page(
    n: Mapping[str, float],
    found: Sequence[Finding],
    pictures: Sequence[Picture],
    results: Mapping[str, xr.Dataset],
    details: Mapping[str, str],
) -> str:
    """Return the page."""
    shown = {name: _number(name, n) for name in n}
    figures = {
        picture.name: f"<figure>{picture.html}\n<figcaption>"
        f"{CAPTIONS[picture.name].format_map(shown)}</figcaption></figure>"
        for picture in pictures
        if picture.name in CAPTIONS
    }
    (digits,) = (picture.html for picture in pictures if picture.name == "digits")
    sections = (
        _lead(n, shown, digits, results["cnn-vit"], found),
        _verdicts(found, shown),
        _maps([figures[name] for name in ("vit", "cnn", "cnn-vit", "layer-match")]),
        _controls([figures[name] for name in figures if "untrained" in name]),
        TRY_NEXT,
        _method(shown, details),
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>ViT and CNN on handwritten digits: representation similarity</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{"".join(sections)}
</main>
</body>
</html>
"""


def _lead(
    n: Mapping[str, float],
    shown: Mapping[str, str],
    digits: str,
    both: xr.Dataset,
    found: Sequence[Finding],
) -> str:
    layers_cnn, layers_vit = both.cka.shape
    warnings = "".join(f'<p class="warning">{line}</p>' for line in _unlearned(n))
    return f"""<header>
<h1>Does a vision transformer see handwritten digits like a convolutional network?</h1>
<p class="lead">A small vision transformer (ViT) and a small convolutional network (CNN) learned to
read the same digits. The ViT reads {shown["accuracy_vit"]} of the held-out images correctly, and
the CNN {shown["accuracy_cnn"]}. Do they get there in the same way? This page compares each of the
{layers_vit} layers of the ViT with each of the {layers_cnn} layers of the CNN. Its number is CKA:
1 if two layers represent the images alike, up to rotation and scale, and about 0 if they have
nothing in common.</p>
<p class="lead"><strong>{summary(found)}</strong> Raghu et al. (2021) made the claims for large
models and photographs. Controls check that the answer is not an accident.</p>
{warnings}
{digits}
</header>
"""


def summary(found: Sequence[Finding]) -> str:
    """Say in one sentence how many of the claims hold, controls apart."""
    claims = [finding.verdict for finding in found if not finding.claim.startswith("Control")]
    controls = [finding.verdict for finding in found if finding.claim.startswith("Control")]
    return (
        f"{claims.count(HOLDS)} of {len(claims)} claims about how such models differ hold on these "
        f"digits, and {controls.count(HOLDS)} of {len(controls)} controls."
    )


def _verdicts(found: Sequence[Finding], shown: Mapping[str, str]) -> str:
    rows = "".join(
        f'<li class="{finding.verdict.replace(" ", "-")}">'
        f'<p class="verdict">{finding.verdict}</p><div>'
        f"<h3>{escape(finding.claim)}</h3>"
        f"<p>Measured: {escape(finding.measured).format_map(shown)}.</p>"
        f'<p class="criterion">Criterion: {escape(finding.criterion)}</p></div></li>'
        for finding in found
    )
    return f"""
<section>
<h2>What holds on these data</h2>
<ul class="findings">{rows}</ul>
<p class="note">A claim holds in part if only some parts of its criterion are met. ± is a standard
error over batches of images (jackknife). It is an upper bound: it assumes that the errors of all
pairs of layers add up. It does not cover chance in training: another seed trains other models, and
a verdict near its criterion may change.</p>
</section>
"""


def _maps(figures: Sequence[str]) -> str:
    return f"""
<section>
<h2>The maps</h2>
<div class="figures">
{"".join(figures)}
</div>
</section>
"""


def _controls(figures: Sequence[str]) -> str:
    return f"""
<section>
<h2>Controls</h2>
<p>The layers of an untrained network can score high too, because they see the same images and each
layer is computed from the one before. A map says something about <em>learning</em> only if it
differs from these.</p>
<div class="figures">
{"".join(figures)}
</div>
</section>
"""


def _method(shown: Mapping[str, str], details: Mapping[str, str]) -> str:
    about = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in details.items())
    return f"""
<section>
<h2>How it was made</h2>
<p>CKA is linear, with the unbiased minibatch estimator of Nguyen, Raghu and Kornblith (2021),
arXiv:2010.15327. 1 means the same up to rotation and scale; about 0 means unrelated. The largest
standard error of any pair of layers is {shown["error_largest"]}. A map shows every layer,
including norms and activations, from the input (lower left) to the output. The claims are from
Raghu, Unterthiner, Kornblith, Zhang and Dosovitskiy (2021), arXiv:2108.08810. The images are the
handwritten digits that come with scikit-learn.</p>
<dl>{about}</dl>
</section>
"""


def _unlearned(n: Mapping[str, float]) -> list[str]:
    """Return a warning, unless both models can read digits."""
    if min(n["accuracy_vit"], n["accuracy_cnn"]) >= LEARNED:
        return []
    return [
        f"A model reads fewer than {LEARNED:.0%} of the digits, so no verdict on the models "
        "counts yet."
    ]


def _text(name: str, n: Mapping[str, float]) -> str:
    """Return a number as text, with its standard error if it has one."""
    if name.startswith(("accuracy", "match")):
        return f"{n[name]:.1%}"
    error = f" ± {n[f'{name}_error']:.3f}" if f"{name}_error" in n else ""
    return f"{n[name]:.3f}{error}".replace("-", "−")


def _number(name: str, n: Mapping[str, float]) -> str:
    """Return a number as an element that keeps its name and full value."""
    return f'<data data-name="{name}" value="{n[name]!r}">{_text(name, n)}</data>'


CAPTIONS = {
    "vit": "The ViT with itself. Two different layers score {mean_vit} on average. The lowest "
    "quarter of the layers scores {ends_vit} with the highest quarter.",
    "cnn": "The CNN with itself. Two different layers score {mean_cnn} on average. The lowest "
    "quarter of the layers scores {ends_cnn} with the highest quarter.",
    "cnn-vit": "Every layer of the CNN with every layer of the ViT: {mean_cnn_vit} on average. "
    "If each image is paired with another image, the average is {mean_chance}, and no pair of "
    "layers is farther from zero than {chance_largest}: this is chance.",
    "layer-match": "Where each layer of the CNN finds its best match in the ViT. Nine in ten "
    "layers of the lower half of the CNN match within the lowest {match_reach} of the ViT, half "
    "of them within the lowest {match_lower}. The CKA of the match exceeds the highest CKA in the "
    "lowest quarter by {margin_match} (median). The upper half matches at {match_upper} (median).",
    "untrained-vit": "The ViT before training ({accuracy_untrained_vit} of the images right) with "
    "itself. Two different layers score {mean_untrained_vit} on average, the lowest with the "
    "highest quarter {ends_untrained_vit}, and the outputs of two different blocks "
    "{blocks_untrained_vit} (trained: {blocks_vit}).",
    "vit-untrained-vit": "The trained ViT with itself before training: {mean_vit_untrained_vit} "
    "on average. A layer with itself before training scores {same_layer_vit_untrained_vit}.",
    "layer-match-untrained": "The match of CNN and ViT, both before training. Nine in ten layers "
    "of the lower half match within the lowest {match_untrained_reach} of the ViT, half of them "
    "within the lowest {match_untrained_lower}.",
}

TRY_NEXT = """
<section>
<h2>Try next</h2>
<p>Compare your own models. Any two torch models and any stream of batches will do:</p>
<pre><code>import repsim

result = repsim.compare(first_model, second_model, data=loader, layers="blocks")
repsim.plot.heatmap(result)</code></pre>
<ul>
<li>Point at the cells of these maps, and zoom: <code>.venv/bin/repsim report
demo-output/results</code> writes a page for that.</li>
<li>Train other models: <code>.venv/bin/python examples/digits.py --seed 1</code>. A verdict near
its criterion may change.</li>
<li>Redo every figure of the paper: <code>make paper</code>.</li>
<li>Learn more: <code>docs/tutorial.md</code> takes ten minutes, and
<code>docs/howto/reading-a-map.md</code> says what misleads.</li>
</ul>
</section>
"""

STYLE = """
:root { --ground: #fff; --text: #1c2128; --soft: #57606a; --line: #d8dee4; --plate: #fff;
  --good: #1a7f37; --partly: #9a6700; --bad: #b42318; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ground: #14171c; --text: #e6e8eb; --soft: #a3abb5; --line: #333a43; --plate: #fff;
    --good: #5bc57c; --partly: #d9a93a; --bad: #f28b80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.1rem 4rem; }
header, section > p, section > ul, dl { max-width: 46rem; }
h1 { font-size: clamp(1.5rem, 1.1rem + 2vw, 2.2rem); line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .8rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; }
img { display: block; width: 100%; height: auto; background: var(--plate); border-radius: 4px; }
.warning { color: var(--bad); font-weight: 650; }
.lead { font-size: 1.08rem; }
.findings { list-style: none; margin: 0; padding: 0; }
.findings li { display: grid; grid-template-columns: 8.5rem 1fr; gap: .2rem 1rem;
  border-top: 1px solid var(--line); padding: .8rem 0; }
.findings p { margin: 0 0 .25rem; }
.verdict { font-weight: 650; }
.holds .verdict { color: var(--good); }
.holds-in-part .verdict { color: var(--partly); }
.does-not-hold .verdict { color: var(--bad); }
.criterion, .note, figcaption, dl { color: var(--soft); font-size: .92rem; }
pre { overflow-wrap: anywhere; white-space: pre-wrap; border: 1px solid var(--line);
  border-radius: 4px; padding: .6rem .8rem; max-width: 46rem; }
pre, code { font: .88rem/1.5 ui-monospace, Menlo, Consolas, monospace; }
data { font-variant-numeric: tabular-nums; white-space: nowrap; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr));
  gap: 2rem 1.6rem; align-items: start; }
figure { margin: 0; max-width: 42rem; }
figcaption { padding-top: .5rem; }
figcaption data { color: var(--text); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 34rem) { .findings li, dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .5rem; } }
"""
