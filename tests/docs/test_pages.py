"""What the pages say must be true of the code: commands, options, documents, links, files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
import yaml

from controlplane.cli import app
from controlplane.policy.loading import load
from controlplane.policy.validation import validate
from controlplane.policy.yaml_source import read

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
TARGET = re.compile(r"^([a-z]+):.*##", re.MULTILINE)


def commands(text: str) -> Iterator[str]:
    """Yield what follows `turnout` wherever a page names a command, in fences and between backquotes."""
    plain = FENCE.sub("", text)
    fenced = (line.partition("  #")[0] for _, body in FENCE.findall(text) for line in body.splitlines())
    for code in (*CODE.findall(plain), *fenced):
        found = re.search(r"(?:^|[\s&])turnout ((?!:)[a-z].*)$", code)
        if found and "$(" not in code:
            yield found[1].split(" > ")[0]


def problem(command: str) -> str | None:
    """Return what is wrong with a command line: an unknown command or option."""
    here = typer.main.get_command(app)
    words = shlex.split(command)
    while hasattr(here, "commands") and words:
        name = words.pop(0)
        if name not in here.commands:
            return f"no command {name!r}"
        here = here.commands[name]
    known = {"--help", *(option for parameter in here.params for option in parameter.opts)}
    unknown = [word for word in words if word.startswith("-") and word not in known]
    return f"no option {unknown[0]!r}" if unknown else None


def documents() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for number, (language, body) in enumerate(FENCE.findall(page.read_text()), 1):
            if language == "yaml" and re.search(r"^kind:", body, re.MULTILINE):
                yield f"{page.relative_to(ROOT)}#{number}", body


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_of_a_page_exists(page):
    wrong = [f"turnout {line}: {why}" for line in commands(page.read_text()) if (why := problem(line))]

    assert not wrong


def test_a_command_that_does_not_exist_is_noticed():
    assert problem("get weather") == "no command 'weather'"
    assert problem("release shop v2 --polcy careful") == "no option '--polcy'"
    assert [
        *commands("`turnout get proxies` and\n```\ncurl x  # turnout no\nturnout apply -f p  # y\n```\n")
    ] == [
        "get proxies",
        "apply -f p",
    ]


@pytest.mark.parametrize(
    ("where", "text"), list(documents()), ids=lambda value: value[:40].partition("\n")[0]
)
def test_every_document_of_a_page_is_valid(where, text):
    sources, problems = read(where, text.encode())
    found = [*problems, *(p for source in sources for p in validate(source).problems)]

    assert not [str(p) for p in found if p.level == "error"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]

    assert not [link for link in links if not (page.parent / link).exists()]


def test_every_decision_has_a_number_of_its_own_and_is_listed():
    folder = ROOT / "docs" / "adr"
    names = sorted(path.name for path in folder.glob("[0-9]*.md"))

    assert [name[:4] for name in names] == [f"{number:04}" for number in range(1, len(names) + 1)]
    assert LINK.findall((folder / "README.md").read_text()) == names
    assert all((folder / name).read_text().startswith(f"# {name[:4]} ") for name in names)


def test_every_make_target_of_the_readme_exists():
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))

    assert set(re.findall(r"make ([a-z]+)", (ROOT / "README.md").read_text())) - {"takes"} <= targets


def test_the_compose_file_uses_what_is_there():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    mounts = [
        volume.partition(":")[0]
        for service in services.values()
        for volume in service.get("volumes", ())
        if volume.startswith("./")
    ]
    turnout = [shlex.join(services["control-plane"]["command"])]
    turnout += [
        line.split("turnout ", 1)[1].split(" > ")[0]
        for line in services["bootstrap"]["command"][0].splitlines()
    ]

    assert (ROOT / services["shop"]["build"]["dockerfile"]).is_file()
    assert all((ROOT / mount).exists() for mount in mounts)
    assert not [why for line in turnout if (why := problem(line))]


def test_the_documents_of_the_compose_file_are_valid():
    files = {path.name: path.read_bytes() for path in (ROOT / "docker" / "policies").iterdir()}

    assert not load(files).problems
