"""What the feed costs those who write, in short; `make bench-writers` measures it at length."""

from rich.console import Console

from tests.bench import writers
from tests.bench.section import Bench, Section, Target


async def section(bench: Bench) -> Section:
    """Rates of the variants, side by side."""
    page = Section(
        "writers",
        "Writers' cost: 32 clients, a flush takes 2 ms longer",
        {"who": "", "rate": "tx/s", "of_plain": "of plain", "of_capture": "of the triggers alone"},
    )
    bench.say("writers")
    quiet = Console(quiet=True)
    disk = writers.default_disk()
    found = await writers.measure(32, 1, 1 if bench.quick else 4, disk, 2, 4, 10_000, quiet)
    for variant, words in writers.VARIANTS.items():
        rate = found.rates[variant]
        of_capture = rate / found.rates["capture"]
        targets = {
            "service": Target(f">= {writers.TARGET} of the triggers alone", of_capture >= writers.TARGET),
            "attached": Target(
                f">= {writers.TARGET} of the same without feed", found.attached_of_own >= writers.TARGET
            ),
        }
        page.add(
            targets.get(variant), who=words, rate=rate, of_plain=rate / found.rates["plain"],
            of_capture=of_capture,
        )  # fmt: skip
    page.notes.append("Not pinned: 32 writers, Postgres and the service share all cores.")
    return page
