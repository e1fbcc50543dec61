"""One connection to a server that speaks openpi's protocol: `dexworld serve`, a simulated robot, or another's."""

import logging
import ssl
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from dexworld_client.packing import MessageError, packed, unpacked

logger = logging.getLogger(__name__)
_LARGEST = 2**26  # bytes of an answer


class ServerError(RuntimeError):
    """The server refused a message or the connection; it says why."""


@dataclass(frozen=True)
class Chunk:
    """What a policy wants: absolute joint targets (T, J), each to be reached at rest `step_seconds` after the last.

    execute: how many are to be carried out before the next observation. names: the joints. sequence, observed_at: of
    the observation, seconds of this machine's `time.time()`. timing: milliseconds, by name.
    """

    actions: np.ndarray
    step_seconds: float
    execute: int
    names: tuple[str, ...]
    sequence: int
    observed_at: float
    timing: dict[str, float]


@dataclass(eq=False)
class Client:
    """Asks a server, and connects again where the connection is lost, with the same goal and an empty history.

    token: for servers that want one. tls: for wss addresses with a certificate of one's own. timeout_s: for one answer;
    patience_s: how long a server is looked for. `metadata` is what the server says of itself, `clock_offset` its clock
    less ours, seconds, known to half of `round_trip_s`; None where it has none. Raises ConnectionError when patience
    is over and ServerError for what the server refuses.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    timeout_s: float = 60.0
    patience_s: float = 20.0

    def __post_init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.clock_offset: float | None = None
        self.round_trip_s, self.connections, self._sequence = 0.0, 0, 0
        self._connection: ClientConnection | None = None
        self._open = ExitStack()  # the connection
        self._goal = self._untold = dict[str, Any]()  # untold: until this connection's server has it

    def set_goal(self, **goal: Any) -> None:
        """What to reach from the next observation on: `image` (H, W, 3) uint8, `text`, or `clicks` (2, Q, 2), pixels
        and where they should be; optionally `then`, a list of further pictures, and `seed`.
        """
        self._goal = self._untold = {"goal": goal}

    def observe(self, observation: dict[str, Any], observed_at: float | None = None) -> Chunk:
        """The chunk for an observation, a map of arrays by name; blocks until it is there."""
        now = time.time() if observed_at is None else observed_at
        self._sequence += 1
        for left in (2, 1, 0):  # attempts, each with a new connection
            self._connected()
            try:
                reply = self.ask({**observation, **self._untold, "sequence": self._sequence, "observed_at": now})
                break
            except ConnectionError as error:
                if not left:
                    raise
                logger.warning("%s; connecting again", error)
        if "actions" not in reply:
            raise ServerError(f"{self.url} answers without actions, but with {', '.join(map(str, reply))}")
        self._untold = {}
        names = tuple(reply.get("joints", self.metadata.get("joints", ())))
        facts = {"step_seconds": 1.0, "execute": len(reply["actions"]), "sequence": self._sequence} | reply
        numbers = float(facts["step_seconds"]), int(facts["execute"]), names, int(facts["sequence"])
        return Chunk(np.asarray(reply["actions"], float), *numbers, now, dict(reply.get("server_timing", {})))

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to any message. Raises ConnectionError where the connection is lost meanwhile."""
        connection = self._connected()
        try:
            connection.send(packed(message))
            reply = connection.recv(self.timeout_s)
        except (WebSocketException, OSError) as error:  # TimeoutError is an OSError
            self.close()
            raise ConnectionError(f"the connection to {self.url} is lost: {error}") from error
        if isinstance(reply, str):
            self.close()
            raise ServerError(reply)
        return unpacked(reply)

    def close(self) -> None:
        """End the connection."""
        self._connection = None
        self._open.close()

    def __enter__(self) -> Self:
        self._connected()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self) -> ClientConnection:
        """The connection, made anew where it is lost: waits twice as long after every failure."""
        wait, until = 0.05, time.monotonic() + self.patience_s
        options: dict[str, Any] = {"compression": None, "max_size": _LARGEST, "ssl": self.tls}
        options |= {"additional_headers": {"Authorization": f"Api-Key {self.token}"}} if self.token else {}
        while self._connection is None:
            try:
                made: Any = self._open.enter_context(connect(self.url, **options))  # websockets 16 has no type for it
                self._connection, self.metadata = made, unpacked(made.recv(self.timeout_s, decode=False))
                if self.metadata.get("clock"):  # another's server has none
                    began = time.time()
                    there = self.ask({"ping": began})["time"]
                    self.round_trip_s = time.time() - began
                    self.clock_offset = there - began - self.round_trip_s / 2
                self.connections, self._untold = self.connections + 1, self._goal
            except (OSError, WebSocketException, MessageError) as error:
                self.close()
                if isinstance(error, InvalidStatus) and error.response.status_code in (401, 403):
                    raise ServerError(f"{self.url} refuses the token") from error
                if time.monotonic() + wait > until:
                    raise ConnectionError(f"{self.url} can't be reached: {error}") from error
                time.sleep(wait)
                wait = min(2 * wait, 2.0)
        return self._connection
