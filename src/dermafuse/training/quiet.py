"""Loading TensorFlow without its remarks about CPU instructions, which it writes past Python's stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


def load_tensorflow() -> None:
    """Import TensorFlow and Keras; what they write to stderr is shown only if the import fails."""
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _held_stderr():
        import keras
        import tensorflow  # noqa: F401

        keras.config.backend()


@contextlib.contextmanager
def _held_stderr() -> Iterator[None]:
    # The remarks come from C++ static initialisers, before any logging level is read: only the file
    # descriptor itself can hold them back.
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(original, 2)
            held.seek(0)
            sys.stderr.write(held.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
