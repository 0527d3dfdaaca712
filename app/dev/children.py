"""Child processes: kept running, restarted, ended; and the guard, which ends them when nobody else can."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_GUARD = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py"))]
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0  # seconds between a death and the next start
_STEADY_SECONDS = 10.0  # who lived that long begins with the first pause again
_RESTART_SECONDS = 6.0  # what a child gets to end when it is restarted
_STDERR = 2


def say(line: str) -> None:
    """A line of the supervisor's own."""
    with suppress(OSError):  # nobody reads any more: no reason to end
        print(f"cronspace dev: {line}", file=sys.stderr, flush=True)


class Guard:
    """The guard process; ``lock`` is a file descriptor that it holds, too (None: there is none)."""

    def __init__(self, lock: int | None) -> None:
        self.pipe = -1  # the write end: children announce themselves there
        self._inherited = () if lock is None else (lock,)
        self._known: dict[int, int] = {}
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, and keep it running."""
        process, self.pipe = await self._spawn()
        self._task = asyncio.create_task(self._keep(process))

    def note(self, pid: int, order: int) -> None:
        """Remember a child, which has announced itself, for a guard that has to be started again."""
        self._known[pid] = order

    def forget(self, pid: int) -> None:
        """A child has ended."""
        del self._known[pid]
        self._tell(b"-%d" % pid)

    async def stop(self) -> None:
        """Let it go: it ends what it knows of, and then itself."""
        if self._task is not None:
            self._stopping = True
            os.close(self.pipe)
            await self._task

    def _tell(self, line: bytes) -> None:
        with suppress(BrokenPipeError):  # it died; the next one is told what is so then
            os.write(self.pipe, line + b"\n")

    async def _spawn(self) -> tuple[Process, int]:
        read, write = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *_GUARD, "watch", stdin=read, stdout=DEVNULL, pass_fds=self._inherited, start_new_session=True
            )
        except BaseException:
            os.close(write)
            raise
        finally:
            os.close(read)
        return process, write

    async def _keep(self, process: Process) -> None:
        while True:
            await process.wait()
            if self._stopping:
                return
            try:
                process, write = await self._spawn()
            except OSError as error:
                say(f"the guard could not be started again ({error.strerror})")
                await asyncio.sleep(_FIRST_PAUSE)
                continue
            if self._stopping:
                os.close(write)
                continue
            # Only now: a child that starts meanwhile must not meet another file under the old number.
            os.close(self.pipe)
            self.pipe = write
            for pid, order in self._known.items():
                self._tell(b"+%d %d" % (pid, order))
            await asyncio.sleep(_FIRST_PAUSE)  # no faster than this, if it keeps dying


class Child:
    """One child. It is restarted when it ends by itself, as soon as ``keep`` is set; before, ``failure``
    says how it ended. ``order``: the guard ends lower ones first.
    """

    def __init__(
        self, name: str, order: int, command: Sequence[str], environ: Mapping[str, str], guard: Guard
    ) -> None:
        self.name = name
        self.keep = False
        self.failure = ""
        self._order = order
        self._command = command
        self._environ = environ
        self._guard = guard
        self._process: Process | None = None
        self._stopping = False
        self._restarting = False
        self._skip_pause = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start it, in the background."""
        self._task = asyncio.create_task(self._run())

    async def restart(self) -> None:
        """End it, and start it at once; one that waits for its next start gets it now."""
        if self._process is None:
            self._skip_pause.set()
        else:
            self._restarting = True
            await self._end(self._process, _RESTART_SECONDS, asyncio.Event(), 0)

    async def stop(self, seconds: float, hurry: asyncio.Event, least: float = 0) -> None:
        """End it: SIGTERM, and SIGKILL after ``seconds``, or ``least`` when there is hurry."""
        self._stopping = True
        self._skip_pause.set()
        while self._task is not None and not self._task.done():
            if self._process is None:  # being started just now
                await asyncio.wait([self._task], timeout=0.02)
            else:
                await self._end(self._process, seconds, hurry, least)
                await self._task

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping:
            begun = time.monotonic()
            try:
                how = await self._run_once()
            except OSError as error:
                how = f"could not be started ({error.strerror})"
            if self._stopping:
                return
            if self._restarting:
                self._restarting = False
                continue
            if not self.keep:
                self.failure = how
                return
            if time.monotonic() - begun > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            say(f"{self.name} {how}; starting it again in {pause:g} s")
            self._skip_pause.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._skip_pause.wait()
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _run_once(self) -> str:
        """Run it to its end; returns how it ended."""
        # By way of the guard's file, so that the guard knows of it from its first moment on.
        pipe = self._guard.pipe
        process = await asyncio.create_subprocess_exec(
            *_GUARD,
            "run",
            str(self._order),
            str(pipe),
            *self._command,
            stdin=DEVNULL,
            stdout=_STDERR,
            env=self._environ,
            pass_fds=(pipe,),
            start_new_session=True,
        )
        self._guard.note(process.pid, self._order)
        self._process = process
        status = await process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what it forked, like Redis's rewriting
        self._process = None
        self._guard.forget(process.pid)
        return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"

    async def _end(self, process: Process, seconds: float, hurry: asyncio.Event, least: float) -> None:
        ended = asyncio.create_task(process.wait())
        hurried = asyncio.create_task(hurry.wait())
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait([ended, hurried], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if hurry.is_set() and least:
                await asyncio.wait([ended], timeout=least)
            if not ended.done():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            await ended
        finally:
            ended.cancel()
            hurried.cancel()
