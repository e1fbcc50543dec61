"""A server that speaks openpi's protocol: metadata on connect, then one answer to every message.

Its socket lives in a thread of its own and answers pings and HTTP while sessions work in others. A message that is
wrong gets a text that says why, and ends its session alone (code 1011).
"""

import asyncio
import ctypes
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Protocol, Self

from dexworld.serving.serve_config import ServerConfig
from dexworld.serving.server_metrics import ServerMetrics

try:
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response

    from dexworld_client.packing import MessageError, packed, unpacked
except ModuleNotFoundError as error:
    raise ImportError("a server needs dexworld-client; pip install ./client 'dexworld[serve]'") from error

logger = logging.getLogger(__name__)
_QUIET = logging.getLogger(f"{__name__}.websockets")  # whose errors are those of peers
_QUIET.setLevel(logging.CRITICAL)
_BURST_S = 1.0  # of messages at once, before the limit of their rate holds
_LEAVE_S = 5.0  # that work in progress is waited for at the end


class Session(Protocol):
    """One connection's own state."""

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to a message. Raises ValueError for a message that is wrong."""

    def close(self) -> None:
        """The connection is gone."""


class Service(Protocol):
    """What is served."""

    def metadata(self) -> dict[str, Any]:
        """What a client is told when it connects."""

    def session(self) -> Session:
        """The state of a new connection."""


class Interrupted(BaseException):
    """Raised in work that is in progress when the server stops."""


class SocketServer:
    """Serves a `Service` from `start` to `stop`; a context manager. `port` is the one that it listens on."""

    def __init__(self, config: ServerConfig, service: Service, name: str) -> None:
        self.config, self.service, self.metrics = config, service, ServerMetrics(name)
        self._token, self._tls, self.port = config.token(), config.tls(), config.port
        self._workers = ThreadPoolExecutor(config.sessions, thread_name_prefix=f"{name}-session")
        self._busy: set[int] = set()  # threads
        self._loop, self._over = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name)
        # Not `Thread.join`: a signal's exception inside it makes a running thread look dead (CPython 3.11, bpo-45274).
        self._listening, self._ended = threading.Event(), threading.Event()
        self._failed: OSError | None = None

    def start(self) -> Self:
        """Listen. Raises OSError where the address can't be had."""
        self._thread.start()
        self._listening.wait()
        if self._failed is not None:
            raise self._failed
        self._log("listening", host=self.config.host, port=self.port, tls=self._tls is not None)
        return self

    def wait(self) -> None:
        """Until `max_seconds` are over; for ever without."""
        self._ended.wait(self.config.max_seconds)

    def stop(self) -> None:
        """Close every connection, and end work in progress."""
        with suppress(RuntimeError):  # it is closed already
            self._loop.call_soon_threadsafe(self._over.set)
        until = time.monotonic() + _LEAVE_S
        while not self._ended.wait(0.1) and time.monotonic() < until:
            for number in list(self._busy):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(number), ctypes.py_object(Interrupted))
        self._workers.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:  # a signal
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._listen())
        finally:
            self._loop.close()
            self._ended.set()

    async def _listen(self) -> None:
        config = self.config
        options: dict[str, Any] = {"max_size": int(config.message_mb * 1e6), "max_queue": 4, "compression": None}
        options |= {"process_request": self._http, "ssl": self._tls, "logger": _QUIET}
        try:
            server = await serve(self._serve, config.host, config.port, **options)
        except OSError as error:
            self._failed = error
            self._listening.set()
            return
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            self._listening.set()
            await self._over.wait()

    def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers what is no websocket, and refuses whom it doesn't know or has no room for."""
        page = request.path.partition("?")[0]
        if page == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n")
        if self._token is not None:
            given = request.headers.get("Authorization", "").encode()
            if not hmac.compare_digest(given, f"Api-Key {self._token}".encode()):
                self.metrics.count("refused_tokens")
                return connection.respond(HTTPStatus.UNAUTHORIZED, "send the header Authorization: Api-Key TOKEN\n")
        pages: dict[str, Callable[[], str]] = {
            "/version": lambda: json.dumps({"dexworld": version("dexworld")}) + "\n",
            "/latency": lambda: json.dumps(self.metrics.latency()) + "\n",
            "/metrics": self.metrics.prometheus,
        }
        if page in pages:
            return connection.respond(HTTPStatus.OK, pages[page]())
        if self.metrics.sessions >= self.config.sessions:
            self.metrics.count("refused_sessions")
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "all sessions are taken; try again later\n")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        """One session."""
        self.metrics.sessions += 1
        self.metrics.count("sessions")
        number, session = self.metrics.counts["sessions"], None
        self._log("connected", session=number, peer=str(connection.remote_address))
        try:
            session = self.service.session()
            await connection.send(packed(self.service.metadata()))
            await self._answer_all(connection, session, number)
        except ConnectionClosed:
            pass
        finally:
            self.metrics.sessions -= 1
            if session is not None:
                session.close()
            self._log("disconnected", session=number)

    async def _answer_all(self, connection: ServerConnection, session: Session, number: int) -> None:
        rate, allowed, last, total = self.config.messages_per_second, 1.0, time.monotonic(), None
        async for data in connection:
            began = time.monotonic()
            allowed, last = min(allowed + (began - last) * rate, max(1.0, _BURST_S * rate)), began
            if allowed < 1.0:
                self.metrics.count("slowed")
                await asyncio.sleep((1.0 - allowed) / rate)
                began = time.monotonic()
            allowed -= 1.0
            try:
                answer = await self._loop.run_in_executor(self._workers, self._work, session, data)
            except ValueError as error:
                await self._refuse(connection, number, "message_errors", str(error))
                return
            except Interrupted:
                return
            except Exception as error:
                logger.exception("session %d", number)
                await self._refuse(
                    connection, number, "failures", f"the server failed: {type(error).__name__}: {error}"
                )
                return
            seconds = time.monotonic() - began
            timing = {"infer_ms": 1e3 * seconds} | ({} if total is None else {"prev_total_ms": 1e3 * total})
            await connection.send(packed(answer | {"server_timing": timing}))
            total = time.monotonic() - began
            self.metrics.answered(seconds)

    def _work(self, session: Session, data: str | bytes) -> dict[str, Any]:
        """Read a message and answer it, in a thread of the workers."""
        self._busy.add(threading.get_ident())
        try:
            message = unpacked(data) if isinstance(data, bytes) else data
            if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
                raise MessageError("a message is a map whose keys are texts, packed by msgpack in a binary frame")
            return session.answer(message)
        finally:
            self._busy.discard(threading.get_ident())

    async def _refuse(self, connection: ServerConnection, number: int, event: str, why: str) -> None:
        """Tell why, and end the session, as openpi's server does."""
        self.metrics.count(event)
        self._log("refused", session=number, why=why)
        await connection.send(why)
        await connection.close(1011, event.replace("_", " "))

    def _log(self, event: str, **facts: Any) -> None:
        """One line of JSON."""
        logger.info("%s", json.dumps({"event": event, "server": self.metrics.name, **facts}))
