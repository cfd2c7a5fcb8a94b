"""What the documents say leads somewhere: in the repository, and where the README is shown as the page of a package."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from p2p_dist import __version__

CHECKOUT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md",
    "hpc/LUMI.md",
    "hpc/README.md",
    "containers/README.md",
    "CHANGELOG.md",
    ".github/CONTRIBUTING.md",
    ".github/DECISIONS.md",
    ".github/EVALUATION.md",
)

MADE = re.compile(
    r"(containers/(p2p_dist|my)\.|evaluations/|checkpoints/|page/|logs/|slurm/|code/|runs/|shards/|songs/|train/|test/|tests/benchmarks/gpu\.)"
)
"""Paths that a user's runs have, or a build makes."""


def links(text):
    """Where the links of a Markdown text lead: inline, by reference, and in HTML."""
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)", text)
    referred = re.findall(r"^\s*\[[^\]]+\]:\s*<?(\S+?)>?\s*$", text, re.MULTILINE)
    return [*inline, *referred, *re.findall(r"(?:href|src)\s*=\s*[\"']([^\"']+)", text)]


def test_every_link_of_the_package_page_is_whole():
    """The README is the page of the package, where a path of the repository leads nowhere; of a picture the words are shown."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    text = (CHECKOUT / project["readme"]).read_text()
    pictures = re.findall(r"!\[[^\]]{40,}\]\((\.github/\w+\.png)\)", text)
    assert [link for link in links(text) if not link.startswith(("https://", "#")) and link not in pictures] == []
    assert all((CHECKOUT / picture).is_file() for picture in pictures)
    before = text[: text.index(f"]({pictures[0]})")]
    assert "make demo" in before and len(before.splitlines()) <= 25, "what it is, how to begin and the page are one screen"
    headings = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    assert {link[1:] for link in links(text) if link.startswith("#")} <= headings


def test_links_are_found_however_they_are_written():
    text = 'a [b](c.md "t") [d][e]\n[e]: f.md\n<img src="g.png"> [h](<i.md>) ![j](k.png)'
    assert links(text) == ["c.md", "i.md", "k.png", "f.md", "g.png"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_a_document_names_are_there(document):
    text = (CHECKOUT / document).read_text()
    named = set(re.findall(r"(?:`| )((?:[\w.]+/)+[\w.-]+\.(?:py|md|sh|yaml|sbatch|def))\b", text))
    named = {name for name in named if not MADE.match(name)}
    assert named and [name for name in sorted(named) if not (CHECKOUT / name).exists()] == []
    own = {link for link in links(text) if not link.startswith(("https://", "#"))}
    assert [link for link in own if not (CHECKOUT / document).parent.joinpath(link).exists()] == []


def test_the_first_steps_on_lumi_are_in_an_order_that_works():
    """The image is made and the songs are there before a job is queued."""
    steps = (CHECKOUT / "hpc" / "LUMI.md").read_text().split("## First steps")[1].split("\n## ")[0]
    places = [steps.index(step) for step in ("pip install", "containers/build_overlay.sh", "Put the songs", "launch/submit.py")]
    assert places == sorted(places)


def test_every_decision_has_its_context_and_its_cost_in_ten_lines():
    notes = (CHECKOUT / ".github" / "DECISIONS.md").read_text().split("\n## ")[1:]
    parts = [re.findall(r"^\*(\w+)\.\*", note, re.MULTILINE) for note in notes]
    assert len(notes) >= 8 and all(found == ["Context", "Decision", "Cost"] for found in parts), parts
    assert all(len(note.strip().splitlines()) - 2 <= 10 for note in notes)


def test_changelog_and_citation_are_of_this_version():
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    text = (CHECKOUT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", text, re.MULTILINE)
    assert versions[0] == (citation["version"], citation["date-released"]) and citation["version"] == __version__
    assert versions == sorted(versions, reverse=True)
    assert f"\n| {__version__} | " in text, "the table of compatibility has no line of this version"


def test_the_tree_of_the_readme_is_what_is_there():
    """One line for each entry of the repository, each package, and each folder of tests that mirrors none."""
    text = (CHECKOUT / "README.md").read_text().split("```text\n")[-1].split("```")[0]
    told, folders = set(), [""]
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.split(" {3,}", line.strip())[0].split()
        told |= {"".join(folders[: depth + 1]) + name for name in names}
        folders[depth + 1 :] = names[:1]
    listed = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split()
    packages = {path.removesuffix("__init__.py") for path in listed if re.match(r"p2p_dist/.*__init__\.py$", path)}
    mirrors = {path.replace("p2p_dist/", "tests/", 1) for path in packages}
    tests = {match.group() for path in listed if (match := re.match(r"tests/\w+/", path))}
    assert told == {re.sub("/.*", "/", path) for path in listed} | packages | (tests - mirrors)
