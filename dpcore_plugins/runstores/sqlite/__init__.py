"""Records of runs in one SQLite file: ``store`` reads and writes it, ``aside`` keeps one that is damaged."""

from dpcore_plugins.runstores.sqlite.store import SqliteRunStore

__all__ = ("SqliteRunStore",)
