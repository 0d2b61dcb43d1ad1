"""One module a code: each has ``CODE``, ``TITLE`` and ``check(given)``, which returns a finding or ``None``."""
