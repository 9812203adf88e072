"""The table of findings as text, Markdown and one page of HTML that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from raghu2021.experiments import Finding

__all__ = ["Shown", "markdown", "page", "plain"]

TITLE = "Do vision transformers see like convolutional networks? The paper's findings, here"


@dataclass(frozen=True)
class Shown:
    """The results for one kind of images."""

    name: str
    about: str
    findings: Sequence[Finding]
    pictures: Sequence[tuple[str, str, bytes]]
    """Caption, words for those who do not see it, PNG."""
    accuracies: Mapping[str, float]


def plain(shown: Sequence[Shown]) -> str:
    """Return the verdicts for a terminal."""
    lines = []
    for each in shown:
        lines.append(f"{each.name}: {_tally(each.findings)}")
        lines += [f"  {f.verdict.upper():<14} {f.figure:<8} {f.claim}" for f in each.findings]
    return "\n".join(lines)


def _tally(findings: Sequence[Finding]) -> str:
    verdicts = [finding.verdict for finding in findings]
    counts = [(name, verdicts.count(name)) for name in dict.fromkeys(verdicts)]
    return ", ".join(f"{count} {name}" for name, count in sorted(counts, key=lambda c: -c[1]))


def markdown(shown: Sequence[Shown], details: Mapping[str, str]) -> str:
    """Return the table of findings, with its models and images."""
    lines = [f"# {TITLE}", ""]
    for each in shown:
        lines += [f"## {each.name}", "", each.about, "", f"Verdicts: {_tally(each.findings)}.", ""]
        if each.accuracies:
            lines += ["| model | test accuracy |", "|---|---|"]
            lines += [f"| {name} | {value:.1%} |" for name, value in each.accuracies.items()]
            lines += [""]
        lines += [
            "| figure | finding | the paper | here | control | verdict | criterion |",
            "|---|---|---|---|---|---|---|",
        ]
        for f in each.findings:
            cells = (
                f.figure,
                f.claim,
                f.paper,
                f.measured,
                f.control,
                f"**{f.verdict}**",
                f.criterion,
            )
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines += [""]
    lines += ["## How it was made", ""]
    lines += [f"- {name}: {value}" for name, value in details.items()]
    return "\n".join(lines) + "\n"


def page(shown: Sequence[Shown], details: Mapping[str, str]) -> str:
    """Return the page."""
    about = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in details.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(TITLE)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header>
<h1>{escape(TITLE)}</h1>
<p class="lead">Every experiment of Raghu, Unterthiner, Kornblith, Zhang and Dosovitskiy (2021),
arXiv:2108.08810, on models and images that fit an ordinary computer. A finding that does not hold
here is not refuted, because these models and data are small. The numbers show which findings need
large models and much data, and which appear without them.</p>
<nav>{"".join(f'<a href="#{_anchor(each.name)}">{escape(each.name)}</a>' for each in shown)}</nav>
</header>
{"".join(_section(each) for each in shown)}
<section>
<h2>How it was made</h2>
<p>Criteria were fixed before anything was measured. A finding holds if all its conditions are met
with every seed, and holds in part if some are. ± is a standard error: a jackknife over batches of
images for CKA, and binomial for accuracies. For a mean over layers it is the mean of their errors,
which is an upper bound. It does not cover chance in training; the other seeds show that.</p>
<dl>{about}</dl>
</section>
</main>
</body>
</html>
"""


def _anchor(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def _section(shown: Shown) -> str:
    rows = "".join(_row(finding) for finding in shown.findings)
    accuracies = "".join(
        f"<tr><td>{escape(name)}</td><td>{value:.1%}</td></tr>"
        for name, value in shown.accuracies.items()
    )
    table = f"<table><tr><th>model</th><th>test accuracy</th></tr>{accuracies}</table>"
    return f"""
<section id="{_anchor(shown.name)}">
<h2>{escape(shown.name)}</h2>
<p>{escape(shown.about)}</p>
{table if accuracies else ""}
<h3 class="tally">{escape(_tally(shown.findings))}</h3>
<ul class="findings">{rows}</ul>
<div class="figures">{"".join(_figure(*picture) for picture in shown.pictures)}</div>
</section>"""


def _row(f: Finding) -> str:
    control = f'<p class="soft">Control: {escape(f.control)}</p>' if f.control else ""
    return (
        f'<li class="{f.verdict.replace(" ", "-")}"><p class="verdict">{escape(f.verdict)}<br>'
        f'<span class="soft">{escape(f.figure)}</span></p><div><h3>{escape(f.claim)}</h3>'
        f"<p>Here: {escape(f.measured)}</p>{control}"
        f'<p class="soft">The paper: {escape(f.paper)}</p>'
        f'<p class="soft">Criterion: {escape(f.criterion)}</p></div></li>'
    )


def _figure(caption: str, alt: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


STYLE = """
:root { --ground: #fff; --text: #1c2128; --soft: #57606a; --line: #d8dee4;
  --good: #1a7f37; --partly: #9a6700; --bad: #b42318; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171c; --text: #e6e8eb; --soft: #a3abb5; --line: #333a43;
    --good: #5bc57c; --partly: #d9a93a; --bad: #f28b80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.1rem 4rem; }
header, section > p, section > ul, dl { max-width: 48rem; }
h1 { font-size: clamp(1.5rem, 1.1rem + 2vw, 2.2rem); line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.4rem; margin: 3rem 0 .8rem; text-transform: capitalize; }
h3 { font-size: 1rem; margin: 0 0 .25rem; }
.tally { margin-top: 1.6rem; }
nav a { color: inherit; margin-right: 1.2rem; text-transform: capitalize; }
img { display: block; width: 100%; height: auto; background: #fff; border-radius: 4px; }
table { border-collapse: collapse; font-size: .92rem; }
th { text-align: left; }
td, th { border-top: 1px solid var(--line); padding: .15rem 1.4rem .15rem 0; }
td + td { font-variant-numeric: tabular-nums; }
.findings { list-style: none; margin: 0 0 2rem; padding: 0; }
.findings li { display: grid; grid-template-columns: 8.5rem 1fr; gap: .2rem 1rem;
  border-top: 1px solid var(--line); padding: .8rem 0; }
.findings p { margin: 0 0 .25rem; font-variant-numeric: tabular-nums; }
.verdict { font-weight: 650; }
.soft, figcaption, dl { color: var(--soft); font-size: .92rem; font-weight: 400; }
.holds .verdict { color: var(--good); }
.in-part .verdict { color: var(--partly); }
.does-not-hold .verdict { color: var(--bad); }
.figures { display: grid; gap: 2.4rem; }
figure { margin: 0; }
figcaption { padding-top: .5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 34rem) { .findings li, dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .5rem; } }
"""
