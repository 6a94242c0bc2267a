"""The jobs that rq's workers, processes of their own, import and run; and what they leave to be counted."""

from __future__ import annotations

import os

import redis

URL = "CLIENTS_TEST_URL"  # the environment variable that tells a worker where the proxy is
DONE = "jobs:done"


def note(number: int) -> int:
    """The job: it is seen to have been done, by a list that shows it if it is done twice."""
    with redis.Redis.from_url(os.environ[URL]) as client:
        client.rpush(DONE, number)
    return number * number
