"""Reporting checklists, filled: CLEAR Derm and TRIPOD+AI."""
