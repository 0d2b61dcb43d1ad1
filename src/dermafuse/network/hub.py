"""Models on the Hugging Face hub: ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``, through its own client.

The client keeps what it downloaded in its own cache (``HF_HOME``) and asks nobody where ``HF_HUB_OFFLINE=1`` is set; an
access token of the user's (for private models) is its business too. Its cache is made of links, which a bundle may not
hold: what the manifest lists is copied into ``DERMAFUSE_CACHE``, one folder a commit. Hashes are checked by whoever
reads the bundle, as those of any other.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dermafuse import __version__
from dermafuse.errors import BundleError, ConfigError, NetworkError
from dermafuse.files import cache_folder, folder_atomic

#: ``pathlib`` makes one slash of two.
_NAMED: Final = re.compile(r"hf:[/\\]{1,2}(?P<name>[\w.-]+[/\\][\w.-]+)(?:@(?P<revision>[\w./-]+))?")

#: A file of a bundle, as a manifest may list it: no path.
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MANIFEST: Final = "manifest.json"


def model_from_hub(named: str) -> Path:
    """Return the folder of a bundle on the hub, downloaded unless it is here already.

    Args:
        named: ``hf://OWNER/NAME``, with ``@REVISION`` for a branch, a tag or a commit other than the newest.

    Raises:
        ConfigError: the name is none, or huggingface_hub is not installed.
        NetworkError: it cannot be had. BundleError: it holds no bundle of dermafuse.
    """
    found = _NAMED.fullmatch(named)
    if found is None:
        shown = re.sub(r"^hf:[/\\]+", "hf://", named)
        raise ConfigError(
            f"'{shown}' names no model: a model on the hub is hf://OWNER/NAME or hf://OWNER/NAME@REVISION."
        )
    name = found["name"].replace("\\", "/")
    get = _client(name)
    manifest = get(_MANIFEST, found["revision"])
    commit = manifest.parent.name
    folder = cache_folder() / "hub" / name.replace("/", "--") / commit
    if not (folder / _MANIFEST).is_file():
        files = [get(file, commit) for file in _listed(manifest, name)]
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder_atomic(folder, overwrite=True) as fresh:
            for path in (*files, manifest):
                shutil.copyfile(path, fresh / path.name)
    return folder


def _client(name: str) -> Callable[[str, str | None], Path]:
    """Return what fetches one file of a repository, whose commit is the name of the folder that it then lies in."""
    try:
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub import errors as hub
    except ImportError as error:
        raise ConfigError(f'hf://{name} needs huggingface_hub; run: pip install "dermafuse[hub]".') from error
    # It would tell the hub which packages are installed here and who runs it; its variable is read at its import.
    constants.HF_HUB_DISABLE_TELEMETRY = True

    def get(file: str, revision: str | None) -> Path:
        settings: dict[str, Any] = {"revision": revision, "library_name": "dermafuse", "library_version": __version__}
        try:
            return Path(hf_hub_download(name, file, **settings))
        except hub.LocalEntryNotFoundError as error:
            raise NetworkError(
                f"hf://{name} is not in the cache of huggingface_hub and the hub cannot be asked (offline, or "
                "HF_HUB_OFFLINE is set); connect to the network once, or name the folder of a bundle."
            ) from error
        except hub.EntryNotFoundError as error:
            raise BundleError(
                f"hf://{name} holds no {file}, so it is no model of dermafuse; check the name."
            ) from error
        except hub.GatedRepoError as error:
            raise NetworkError(
                f"hf://{name} is given to those who asked for it: ask on its page, then log in."
            ) from error
        except (hub.RepositoryNotFoundError, hub.HFValidationError) as error:
            raise NetworkError(
                f"There is no model hf://{name}, or it is private and you are not logged in (hf auth login)."
            ) from error
        except hub.RevisionNotFoundError as error:
            raise NetworkError(f"hf://{name} has no revision '{revision}'; check it on the model's page.") from error
        except Exception as error:  # it raises errors of several libraries
            reason = " ".join(str(error).split())[:200]
            raise NetworkError(f"hf://{name}: {file} could not be fetched ({reason}); try again.") from error

    return get


def _listed(manifest: Path, name: str) -> list[str]:
    """Return the files that a manifest lists; what else is in the manifest is checked when the bundle is read."""
    try:
        files = json.loads(manifest.read_bytes())["files"]
        names = [str(file) for file in files]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"The {_MANIFEST} of hf://{name} is none of dermafuse's; check the name.") from error
    if not all(_PLAIN.fullmatch(file) for file in names):
        raise BundleError(f"The {_MANIFEST} of hf://{name} lists files that lie elsewhere; do not use it.")
    return names
