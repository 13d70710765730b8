"""The tally of a run of `feed post`."""

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """What has happened so far, in records."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    skipped: int = 0
    closed: int | None = None
    """Postings that --sync closed because they are not in the input; None without --sync."""

    @property
    def accepted(self) -> int:
        """Records that were written, or were there already without a difference."""
        return self.created + self.updated + self.unchanged

    def __str__(self) -> str:
        skipped = f", {self.skipped:,} skipped" if self.skipped else ""
        return (
            f"{self.created:,} created, {self.updated:,} updated, {self.unchanged:,} unchanged, "
            f"{self.rejected:,} rejected{skipped}"
        ) + ("" if self.closed is None else f", {self.closed:,} closed")
