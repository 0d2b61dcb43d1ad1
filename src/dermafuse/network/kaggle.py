"""Kaggle, through its own client and the user's own token."""

from __future__ import annotations

import shutil
from pathlib import Path

from dermafuse.errors import ConfigError, NetworkError, OutputError
from dermafuse.network.catalogue import Source


def copy_from_kaggle(source: Source, folder: Path) -> None:
    """Let kagglehub fetch a data set into its cache and copy what the source names to ``folder``.

    Kaggle's HAM10000 holds every image twice, in folders whose names differ in case: each file is copied once.

    Raises:
        ConfigError: kagglehub is not installed.
        NetworkError: it could not fetch, or the archive is another one.
        OutputError: the disk is too small for the copy.
    """
    try:
        import kagglehub
    except ImportError as error:
        raise ConfigError(
            "--source kaggle needs kagglehub and a token of your own: pip install kagglehub, then put kaggle.json "
            "into ~/.kaggle, or take another --source."
        ) from error
    try:
        fetched = Path(kagglehub.dataset_download(source.listing))
    except Exception as error:  # kagglehub raises errors of several libraries
        raise NetworkError(
            f"kagglehub could not fetch {source.listing} ({error}); check your token (~/.kaggle/kaggle.json) and that "
            "you accepted the data set's terms on its page, or take another --source."
        ) from error
    needed = (
        sum(path.stat().st_size for path in fetched.rglob("*") if path.is_file()) // 2
    )  # each image lies there twice
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder} has {free / 1e9:.1f} GB free and the copy needs {needed / 1e9:.1f} GB; make room, or choose "
            "another --to."
        )
    for file in source.files:
        found = sorted(fetched.rglob(file.into or file.name))
        if not found:
            raise NetworkError(f"Kaggle's {source.listing} holds no {file.name}; take another --source.")
        if not file.into:
            shutil.copyfile(found[0], folder / file.name)
            continue
        (folder / file.into).mkdir()
        for image in sorted(path for path in found[-1].iterdir() if path.is_file()):
            shutil.copyfile(image, folder / file.into / image.name)
