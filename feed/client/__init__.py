"""The public reader of a feed: follow a stream for ever, list and post postings, from any asyncio program.

    import asyncio

    from feed.client import FeedClient


    async def main() -> None:
        async with FeedClient("https://jobs.example.org") as client:
            async for event in client.follow({"location": ["berlin"]}, since="2h"):
                if event.is_posting:
                    print(event.kind, event.id, event.data["title"])


    asyncio.run(main())

Built on httpx and httpx-sse; needs neither a database nor the rest of the service.
"""

from feed.client.backoff import Backoff
from feed.client.client import FeedClient, JobsPage, Written
from feed.client.continuity import BrokenContinuity, Continuity
from feed.client.errors import ClientError, Refused, Unavailable, UnexpectedAnswer, Unusable
from feed.client.event import StreamEvent
from feed.client.following import Following
from feed.client.query import Filters, FilterValue

__all__ = [
    "Backoff",
    "BrokenContinuity",
    "ClientError",
    "Continuity",
    "FeedClient",
    "FilterValue",
    "Filters",
    "Following",
    "JobsPage",
    "Refused",
    "StreamEvent",
    "Unavailable",
    "UnexpectedAnswer",
    "Unusable",
    "Written",
]
