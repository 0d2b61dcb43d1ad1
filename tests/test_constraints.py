"""constraints.txt pins what an installation with all extras brings, and nothing else."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: What installs is not pinned by what it installs.
INSTALLERS = {"pip", "setuptools", "wheel"}
PARTS = (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
WANTED = [Requirement(text) for part in PARTS for text in part]


def pins() -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**default_environment(), "extra": extra}) for extra in extras or {""})


def closure() -> set[str]:
    """Names of all that is installed because pyproject.toml asks for it, directly or not."""
    pending = [requirement for requirement in WANTED if applies(requirement, set())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while pending:
        requirement = pending.pop()
        entry = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if entry in seen:
            continue
        seen.add(entry)
        try:
            further = metadata.requires(entry[0]) or []
        except metadata.PackageNotFoundError:
            pytest.skip(f"{entry[0]} is not installed; pip install -e .[train,export,dev] -c constraints.txt")
        pending += [inner for text in further if applies(inner := Requirement(text), set(requirement.extras))]
    return {name for name, _ in seen} - INSTALLERS


def test_all_that_is_installed_is_pinned_and_all_that_is_pinned_is_installed() -> None:
    assert pins().keys() == closure()


def test_every_pin_is_a_version_that_pyproject_allows() -> None:
    fixed = pins()
    for requirement in WANTED:
        if applies(requirement, set()):
            assert requirement.specifier.contains(fixed[canonicalize_name(requirement.name)], prereleases=True)
