"""Loading TensorFlow without its remarks about CPU instructions, which it writes past Python's stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


def load_tensorflow(*, threads: int = 0) -> None:
    """Import TensorFlow and Keras; what they write to stderr is shown only if the import fails.

    Args:
        threads: that one operation may use; 0: TensorFlow's choice. Where TensorFlow is loaded already, in use by
            the caller's own program, its setting is left alone.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _held_stderr():
        import keras
        import tensorflow as tf

        keras.config.backend()
        tf.config.threading.set_intra_op_parallelism_threads(threads)


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
        except Exception:  # Ctrl-C and its like are no failure of the import
            os.dup2(original, 2)
            held.seek(0)
            sys.stderr.write(held.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
