"""Waiters against a model of a server that answers when it likes: nobody waits beside an element, and what is pushed
comes out once.
"""

from __future__ import annotations

from collections import deque
from random import Random

import pytest

from tests.proxy.stage import NIL_ARRAY, OK, QUEUED, Client, Stage, array, bulk, number

KEYS = ("x", "y", "z")


class Lists:
    """A server with lists only: executes at once, answers later."""

    def __init__(self) -> None:
        self.lists: dict[str, deque[str]] = {key: deque() for key in KEYS}
        self.answers: deque[bytes] = deque()
        self._block: list[bytes] | None = None

    def run(self, command: str) -> None:
        name, *args = command.split()
        if name == "MULTI":
            self._block = []
            self.answers.append(OK)
        elif name == "EXEC":
            self.answers.append(array(*(self._block or ())))
            self._block = None
        elif self._block is None:
            self.answers.append(self._execute(name, args))
        else:
            self._block.append(self._execute(name, args))
            self.answers.append(QUEUED)

    def _execute(self, name: str, args: list[str]) -> bytes:
        if name == "RPUSH":
            self.lists[args[0]].extend(args[1:])
            return number(len(self.lists[args[0]]))
        for key in args[:-1]:  # BLPOP key… timeout
            if self.lists[key]:
                return array(bulk(key), bulk(self.lists[key].popleft()))
        return NIL_ARRAY


class Play:
    """Clients of a stage whose lane is such a server."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.rng = Random(seed)
        self.stage, self.server = stage, Lists()
        self.waiting: dict[Client, str] = {}  # in order of arrival
        self.idle: list[Client] = []
        self.pusher = stage.client()
        self.pushed = 0
        self.popped: list[str] = []

    def step(self) -> None:
        dice = self.rng.random()
        if dice < 0.3:
            client = self.idle.pop() if self.idle else self.stage.client()
            keys = self.rng.sample(KEYS, self.rng.choice((1, 2, 2, 3)))
            self.waiting[client] = " ".join(keys)
            client.says(f"BLPOP {' '.join(keys)} 0")
        elif dice < 0.6:
            pushes = [self.push() for _ in range(self.rng.choice((1, 1, 2)))]
            self.pusher.says(*(["MULTI", *pushes, "EXEC"] if self.rng.random() < 0.3 else pushes))
        elif dice < 0.65:
            self.stage.hub.waiters.poll()
            self.stage.hub.flush()
        else:
            self.answer(self.rng.randint(1, 6))
        self.serve()

    def push(self) -> str:
        elements = [f"e{self.pushed + number}" for number in range(self.rng.choice((1, 1, 2)))]
        self.pushed += len(elements)
        return f"RPUSH {self.rng.choice(KEYS)} {' '.join(elements)}"

    def serve(self) -> None:
        for command in self.stage.lane.got():
            self.server.run(command)

    def answer(self, count: int) -> None:
        """So many replies arrive in one piece."""
        answers = self.server.answers
        self.stage.lane.answers(*[answers.popleft() for _ in range(min(count, len(answers)))])
        self.pusher.hears()
        for client in list(self.waiting):
            heard = client.hears()
            if heard:
                self.popped.append(heard.split(b"\r\n")[-2].decode())
                del self.waiting[client]
                self.idle.append(client)

    def settle(self) -> None:
        while self.server.answers:
            self.answer(self.rng.randint(1, 6))
            self.serve()


@pytest.mark.parametrize("seed", range(40))
def test_nobody_waits_beside_an_element(stage: Stage, seed: int) -> None:
    play = Play(stage, seed)
    for _ in range(120):
        play.step()
        if play.rng.random() < 0.1:
            play.settle()
            left = {key for key, there in play.server.lists.items() if there}
            assert not [keys for keys in play.waiting.values() if left.intersection(keys.split())], play.waiting
    play.settle()
    left_over = [element for there in play.server.lists.values() for element in there]
    assert sorted(play.popped + left_over) == sorted(f"e{number}" for number in range(play.pushed))
