"""One connection to a server that speaks openpi's protocol: `dexworld serve`, a simulated robot, or another's."""

import logging
import ssl
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidStatus
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


class Client:
    """Asks a server, and connects again where the connection is lost, with the same goal and an empty history.

    token: for servers that want one. tls: for wss addresses with a certificate of one's own. timeout_s: for one answer;
    patience_s: how long a server is looked for. `metadata` is what the server says of itself, `clock_offset` its clock
    less ours, seconds, known to half of `round_trip_s`; None where it has none. Raises ConnectionError when patience
    is over and ServerError for what the server refuses.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 60.0,
        patience_s: float = 20.0,
    ) -> None:
        self.url, self.timeout_s, self.patience_s = url, timeout_s, patience_s
        self._headers, self._tls = {"Authorization": f"Api-Key {token}"} if token else {}, tls
        self._connection: ClientConnection | None = None
        self._open = ExitStack()  # the connection
        self.metadata: dict[str, Any] = {}
        self.clock_offset: float | None = None
        self.round_trip_s = 0.0
        self.connections = self._sequence = 0
        self._goal: dict[str, Any] | None = None
        self._told = False

    def set_goal(self, **goal: Any) -> None:
        """What to reach from the next observation on: `image` (H, W, 3) uint8, `text`, or `clicks` (2, Q, 2), pixels
        and where they should be; optionally `then`, a list of further pictures, and `seed`.
        """
        self._goal, self._told = goal, False

    def observe(self, observation: dict[str, Any], observed_at: float | None = None) -> Chunk:
        """The chunk for an observation, a map of arrays by name; blocks until it is there."""
        now = time.time() if observed_at is None else observed_at
        self._sequence += 1
        for attempt in range(3):
            connection = self._connected()
            goal = {"goal": self._goal} if self._goal is not None and not self._told else {}
            message = {**observation, **goal, "sequence": self._sequence, "observed_at": now}
            try:
                reply = self._exchange(connection, message)
                break
            except ConnectionError:
                if attempt == 2:
                    raise
        if "actions" not in reply:
            raise ServerError(f"{self.url} answers without actions, but with {', '.join(map(str, reply))}")
        self._told = True
        names = tuple(reply.get("joints", self.metadata.get("joints", ())))
        facts = {"step_seconds": 1.0, "execute": len(reply["actions"]), "sequence": self._sequence} | reply
        timing = dict(reply.get("server_timing", {}))
        numbers = float(facts["step_seconds"]), int(facts["execute"])
        return Chunk(np.asarray(reply["actions"], float), *numbers, names, int(facts["sequence"]), now, timing)

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to any message."""
        return self._exchange(self._connected(), message)

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
        while self._connection is None:
            try:
                options: dict[str, Any] = {"additional_headers": self._headers, "ssl": self._tls}
                socket = connect(self.url, compression=None, max_size=_LARGEST, **options)
                made: Any = self._open.enter_context(socket)  # websockets 16 types it as its base class
                self.metadata = unpacked(made.recv(self.timeout_s, decode=False))
                self._connection, self._told = made, False
                self.connections += 1
                self._compare_clocks(made)
            except InvalidStatus as error:
                if error.response.status_code in (401, 403):
                    raise ServerError(f"{self.url} refuses the token") from error
                self._pause(error, wait, until)
            except (OSError, ConnectionClosed, MessageError) as error:
                self._pause(error, wait, until)
            wait = min(2 * wait, 2.0)
        return self._connection

    def _pause(self, error: Exception, wait: float, until: float) -> None:
        self.close()
        if time.monotonic() + wait > until:
            raise ConnectionError(f"{self.url} can't be reached: {error}") from error
        time.sleep(wait)

    def _compare_clocks(self, connection: ClientConnection) -> None:
        if not self.metadata.get("clock"):  # of another's server
            return
        began = time.time()
        reply = self._exchange(connection, {"ping": began})
        self.round_trip_s = time.time() - began
        self.clock_offset = float(reply["time"]) - began - self.round_trip_s / 2

    def _exchange(self, connection: ClientConnection, message: dict[str, Any]) -> dict[str, Any]:
        """Raises ConnectionError where the connection is lost, and closes it."""
        try:
            connection.send(packed(message))
            reply = connection.recv(self.timeout_s)
        except (ConnectionClosed, OSError) as error:  # TimeoutError is an OSError
            logger.warning("the connection to %s is lost: %s", self.url, error)
            self.close()
            raise ConnectionError(f"the connection to {self.url} is lost: {error}") from error
        if isinstance(reply, str):
            self.close()
            raise ServerError(reply)
        return unpacked(reply)
