"""The house rules that a program can check: layers, script headers, settings."""

from __future__ import annotations

import ast
import gc
import re
from pathlib import Path

import pytest
from generated import env_example, texts

from app.config import HELP, Settings, load_settings
from app.errors import ConfigError
from app.store.shard import script_source

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "app/store/lua").glob("[!_]*.lua"))

# Who may import whom: what stands lower in the list may import what stands above it. What lies in app/ and is
# not named is pure: no I/O.
NAMED = [
    {"app.clock", "app.errors"},
    {"app.store", "app.client"},
    {"app.api", "app.cli", "app.dev", "workers"},
    {"app.main", "app.probe", "app.reshard", "app.rotate_keys", "app.__main__"},
]
PURE = {f"app.{path.stem}" for path in (ROOT / "app").iterdir()} - {"app.__init__"} - set().union(*NAMED)
LAYERS = [NAMED[0], PURE, *NAMED[1:]]


def layer_of(module: str) -> tuple[int, str] | None:
    for number, members in enumerate(LAYERS):
        for member in members:
            if module == member or module.startswith(member + "."):
                return number, member
    return None


def imports_of(path: Path) -> set[str]:
    gc.disable()  # CPython 3.11 can raise SystemError for what is finalized while it makes a tree
    try:
        tree = ast.parse(path.read_text())
    finally:
        gc.enable()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("package", ["app", "workers"])
def test_imports_point_downwards_and_siblings_do_not_meet(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        own = layer_of(module)
        if own is None:
            continue
        for imported in imports_of(path):
            other = layer_of(imported)
            if other is None or other[1] == own[1]:
                continue
            assert other[0] <= own[0], f"{module} imports {imported}, which lies above it"
            assert other[0] < own[0] or own[0] < 3, f"{module} imports its sibling {imported}"


def test_only_workers_import_arq_and_only_the_store_and_arq_talk_to_redis() -> None:
    for path in (ROOT / "app").rglob("*.py"):
        names = {name.split(".")[0] for name in imports_of(path)}
        assert "arq" not in names, path
        if "store" not in path.parts:
            # Its exceptions may be known elsewhere.
            assert not {n for n in imports_of(path) if n.startswith("redis") and "exceptions" not in n}, path


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_scripts_header_tells_its_keys_arguments_and_return(path: Path) -> None:
    header, _, body = path.read_text().partition("--#include _keys")
    for part in ("-- KEYS: ", "-- ARGV: now", "-- RETURNS: "):
        assert part in header, part
    assert "Safe to run twice" in header
    source = body + "".join(
        (path.parent / f"{name}.lua").read_text() for name in re.findall(r"^--#include (\w+)", body, re.M)
    )
    used = {int(number) for number in re.findall(r"ARGV\[(\d+)\]", source)}
    assert used or path.stem == "take_serial"
    keys = {int(number) for number in re.findall(r"KEYS\[(\d+)\]", source)}
    told = header.partition("-- KEYS: ")[2].splitlines()[0].split(", ")
    assert max(keys, default=1) == len(told)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_names_its_arguments_before_it_uses_them(path: Path) -> None:
    for line in path.read_text().splitlines():
        if re.search(r"(KEYS|ARGV)\[\d", line) and not line.startswith("--"):
            assert re.match(r"\s*(local |use_policy\(|note_pulse\()", line) or (
                line.startswith("  ARGV[")  # a list of names that goes on in a second line
            ), f"{path.name}: {line}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_includes_are_resolved(path: Path) -> None:
    assert "--#include" not in script_source(path.stem)


def test_every_setting_is_explained() -> None:
    assert set(HELP) == set(Settings.__struct_fields__)


def test_what_is_generated_is_up_to_date() -> None:
    for path, text in texts().items():
        assert path.read_text() == text, f"make generated writes {path.name} anew"


def test_the_example_is_accepted() -> None:
    lines = [line for line in env_example().splitlines() if "=" in line and not line.startswith("#")]
    assert load_settings(dict(line.split("=", 1) for line in lines)) == Settings()


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({"PORT": "http"}, "PORT is 'http': it must be a whole number from 0 to 65535"),
        ({"PORT": "70000"}, "PORT"),
        ({"CRONSPACE_MAX_JOBS": "0"}, "CRONSPACE_MAX_JOBS is '0': it must be a whole number, 1 or more"),
        ({"CRONSPACE_POLL_SECONDS": "soon"}, "it must be a number above 0 to 60"),
        ({"CRONSPACE_LOG_LEVEL": "loud"}, "DEBUG"),
        ({"CRONSPACE_MAX_JOB": "5"}, r"did you mean CRONSPACE_MAX_JOBS\?"),
        ({"CRONSPACE_SERVICE_HOST": "10.0.0.1"}, "unknown setting CRONSPACE_SERVICE_HOST: see .env.example"),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL"),
        ({"CRONSPACE_ECHO": "perhaps"}, "use 1 or 0"),
    ],
)
def test_a_bad_setting_is_one_clear_line(environment: dict[str, str], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        load_settings(environment)
