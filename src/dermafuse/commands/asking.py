"""What predict and explain have in common: which model is asked, about which images, with what metadata."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dermafuse.errors import ConfigError, ImageError
from dermafuse.labels import DISCLAIMER
from dermafuse.printable import plain

_OWN_OPTIONS = ("age", "sex", "localization")


def add_metadata_options(verb: argparse.ArgumentParser) -> None:
    """Add ``--age``, ``--sex``, ``--localization`` and ``--set-feature``."""
    verb.add_argument("--age", metavar="YEARS", help="of the patient, 0 to 120")
    verb.add_argument("--sex", help="female or male, or as the model learned it")
    verb.add_argument("--localization", metavar="SITE", help="body site: back, head/neck, arm, ...")
    verb.add_argument(
        "--set-feature",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a metadata field of a model of your own, such as itch=true; repeatable",
    )


def given_metadata(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the metadata that was given: field -> value.

    Raises:
        ConfigError: ``--set-feature`` without ``=``, or a field given twice.
    """
    values = {name: getattr(arguments, name) for name in _OWN_OPTIONS}
    given = {name: value for name, value in values.items() if value is not None}
    for text in arguments.set_feature:
        name, separator, value = (part.strip() for part in text.partition("="))
        if not separator or not name:
            raise ConfigError(f"--set-feature takes NAME=VALUE, not '{text}'; for example --set-feature itch=true.")
        if name in given:
            raise ConfigError(f"'{name}' is given twice, as '{given[name]}' and '{value}'; give it once.")
        given[name] = value
    return given


def model_and_images(paths: list[Path]) -> tuple[Path | None, list[Path]]:
    """Tell the model from images; a folder in a later place stands for all images in it.

    Returns:
        The model's folder, ``None`` for the released model, and the images.

    Raises:
        BundleError: the first path is a folder, and no model.
        ConfigError: it is no image file either, so that the model meant cannot be told.
        DataError: a folder of images holds none.
    """
    from dermafuse.errors import BundleError
    from dermafuse.runtime.bundle.files import find_bundle
    from dermafuse.runtime.released import model_folder

    if not paths:
        return None, []
    first = model_folder(paths[0])
    if first.is_dir():
        try:
            find_bundle(first)
        except BundleError as error:
            raise BundleError(f"{error}{_images_in(first)}") from error
        return first, _images(paths[1:])
    _refuse_neither(first)
    return None, _images(paths)


def announce(announcements: Any) -> None:
    """Say on stderr what a model announces of itself, and what it is not for."""
    for text in announcements:
        print(plain(text), file=sys.stderr)
    print(DISCLAIMER, file=sys.stderr)


def _refuse_neither(path: Path) -> None:
    """Refuse a first path that is no image file: it may be a model's name misspelt, and another would answer."""
    from dermafuse.data.image_formats import sniff
    from dermafuse.data.scan import IMAGE_SUFFIXES
    from dermafuse.files import nearest_path

    if not path.exists():
        hint = nearest_path(path)
        raise ConfigError(f"{path} does not exist, so it is neither a model (RUN or bundle folder) nor an image.{hint}")
    if not path.is_file():
        raise ConfigError(f"{path} is neither a folder nor a regular file; name a RUN folder or an image.")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return  # whatever is in it, it is meant as an image
    try:
        with path.open("rb") as stream:
            sniff(stream.read(4096), str(path))
    except ImageError as error:
        raise ConfigError(f"{error} It is no model either: name a RUN or bundle folder, or an image.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; check its rights.") from error


def _images(paths: list[Path]) -> list[Path]:
    from dermafuse.data.scan import image_files
    from dermafuse.errors import DataError

    images: list[Path] = []
    for path in paths:
        if not path.is_dir():
            images.append(path)
            continue
        found = image_files(path)
        if not found:
            raise DataError(f"{path} holds no image; name a folder of images, or image files.")
        here = path.absolute()
        images += [path / file.relative_to(here) for file in found]
    return images


def _images_in(folder: Path) -> str:
    """Return what to do where a folder that is no model holds images."""
    from dermafuse.data.scan import image_files
    from dermafuse.errors import DataError

    if any((folder / name).exists() for name in ("config.toml", "metrics.json")):
        return ""  # a run without its model: its images are figures
    try:
        count = len(image_files(folder))
    except DataError:
        return ""
    if not count:
        return ""
    return (
        f" It holds {count:,} image(s): to predict them name the model before it (RUN {folder}), or for the released "
        "model the images themselves."
    )
