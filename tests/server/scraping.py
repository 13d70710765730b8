"""A scrape of `/metrics`, parsed as Prometheus would."""

from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """All series of one scrape."""

    def __init__(self, text: str) -> None:
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                assert key not in self.values, f"twice: {key}"
                self.values[key] = sample.value

    @classmethod
    async def of(cls, url: str) -> Self:
        """Read it from a service."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            response = await client.get(f"{url}/metrics")
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/plain")
        return cls(response.text)

    def __call__(self, name: str, **labels: str) -> float:
        """One series; one that is not there reads as nothing (NaN), which equals no number."""
        return self.values.get((name, tuple(sorted(labels.items()))), float("nan"))

    def total(self, name: str) -> float:
        """The sum over all labels."""
        return sum(value for (found, _), value in self.values.items() if found == name)

    def counters(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """What may never fall."""
        kinds = ("_total", "_count", "_bucket")
        return {
            key: value for key, value in self.values.items() if key[0].startswith("feed_") and key[0].endswith(kinds)
        }
