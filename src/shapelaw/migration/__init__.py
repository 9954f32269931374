"""Takes over runs that an earlier version of shapelaw trained: their folders and tracked runs get today's names."""

from shapelaw.migration.folders import Migration, migrate, old_runs

__all__ = ["Migration", "migrate", "old_runs"]
