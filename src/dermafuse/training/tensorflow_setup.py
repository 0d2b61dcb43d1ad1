"""TensorFlow on this machine: loaded without its remarks, the threads it gets, and what a run was computed with.

Nothing here loads it before a function is called. Its remarks about CPU instructions go past Python's stderr.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Final

from dermafuse.runtime.engine import cpu_count
from dermafuse.versions import versions


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


#: More parts leave too few images in each.
_MOST_PARTS: Final = 4


def parts_of_a_batch() -> int:
    """Return into how many parts a batch is divided on this machine; each has ``threads_of_a_part`` threads."""
    return min(cpu_count(), _MOST_PARTS)


def threads_of_a_part() -> int:
    """Return how many threads one operation may use where the parts of a batch run side by side."""
    return max(1, cpu_count() // parts_of_a_batch())


_PACKAGES: Final = ("keras", "tensorflow-cpu", "tensorflow", "openvino", "numpy", "scikit-learn", "pandas")


def accelerators() -> list[str]:
    """Return the names of the GPUs that TensorFlow computes on, "" where a GPU does not tell its own."""
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    return [str(tf.config.experimental.get_device_details(device).get("device_name", "")) for device in found]


def environment() -> dict[str, str]:
    """Return Python, system, package versions, and ``gpu`` where there is one."""
    found = versions(_PACKAGES)
    if gpus := accelerators():
        found["gpu"] = ", ".join(name or "unnamed" for name in gpus)
    return found
