"""The native writer: every byte once and in order, whatever the kernel takes; and the choice of the way."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from feed.errors import ConfigurationError
from feed.wire.native.compiler import compile_extension
from feed.wire.native.fanout_writer import choose_writer
from tests.processes import ROOT

_FAULTS = [
    *(f"-Wl,--wrap={name}" for name in ("send", "sendmsg", "syscall", "mmap64")),
    str(Path(__file__).with_name("native_faults.c")),
]
_SANITIZERS = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
_MODULE = "feed.wire.native._batch"

needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="the faults are linked in by gcc on Linux"
)


@pytest.fixture(autouse=True)
def _gcc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "gcc")


def modelled(extension: Path, seed: int, rounds: int, **environment: str) -> None:
    """Run the model (native_model.py) on an extension, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.native_model", str(extension), str(seed), str(rounds)],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "every byte arrived once\n"


@needs_compiler
def test_every_byte_is_written_once_whatever_the_kernel_takes(tmp_path: Path) -> None:
    extension = tmp_path / "_batch.so"
    assert compile_extension(extension, *_FAULTS) is None
    modelled(extension, 1, 300)


@needs_compiler
def test_no_memory_is_misused_whatever_the_kernel_takes(tmp_path: Path) -> None:
    extension = tmp_path / "_batch.so"
    failure = compile_extension(extension, *_FAULTS, *_SANITIZERS)
    if failure is not None:
        pytest.skip(f"this compiler has no sanitizers: {failure}")
    libraries = [
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    modelled(
        extension, 2, 60, LD_PRELOAD=" ".join(libraries), PYTHONMALLOC="malloc", ASAN_OPTIONS="detect_leaks=0",
        UBSAN_OPTIONS="print_stacktrace=1",
    )  # fmt: skip


@needs_compiler
def test_the_extension_compiles_without_a_warning(tmp_path: Path) -> None:
    quiet = "-Wno-unused-parameter", "-Wno-missing-field-initializers"
    assert compile_extension(tmp_path / "_batch.so", "-Wall", "-Wextra", "-Werror", *quiet) is None


@pytest.mark.parametrize(
    ("compiler", "failure"), [("/no/such/cc", "there is no C compiler (/no/such/cc)"), ("false", "")]
)
def test_without_a_compiler_there_is_a_sentence_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, failure: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    target = tmp_path / "_batch.so"
    target.write_bytes(b"of an older source")
    said = compile_extension(target)
    assert said is not None and said.startswith(failure) and "\n" not in said
    assert not target.exists()


def fake_extension(error: int | None) -> Any:
    """An extension whose io_uring fails with an errno, or cannot be written with where that is None."""

    class Writer:
        def __init__(self, ring: bool) -> None:
            self.by_ring = ring
            if ring and error is not None:
                raise OSError(error, "")

        def write(self, members: dict[object, None], *_: bytes) -> list[tuple[None, int]]:
            return [(None, 0) for _ in members]

    return SimpleNamespace(Writer=Writer, Socket=lambda fd: fd, Member=lambda socket, stream: (socket, stream))


@pytest.fixture
def extension(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the extension be what the test says; None is one that is not installed."""
    monkeypatch.setitem(sys.modules, _MODULE, request.param)
    yield


@pytest.mark.parametrize("extension", [None], indirect=True)
@pytest.mark.usefixtures("extension")
def test_without_the_extension_python_writes_and_nothing_else_can_be_forced() -> None:
    chosen = choose_writer("auto")
    assert (chosen.way, chosen.writer, chosen.extension) == ("python", None, None)
    assert "native extension" in chosen.reason
    for way in ("io_uring", "send"):
        with pytest.raises(ConfigurationError, match=f"FEED_FANOUT_WRITER={way} needs the native extension"):
            choose_writer(way)


@pytest.mark.parametrize("extension", [fake_extension(1), fake_extension(None)], indirect=True)
@pytest.mark.usefixtures("extension")
def test_where_io_uring_is_forbidden_or_does_not_write_a_loop_of_send_does() -> None:
    chosen = choose_writer("auto")
    assert (chosen.way, chosen.reason) == ("send", "the system does not allow io_uring (Operation not permitted)")
    assert choose_writer("send").way == "send"
    with pytest.raises(ConfigurationError, match="FEED_FANOUT_WRITER=io_uring: the system does not allow io_uring"):
        choose_writer("io_uring")


def test_python_is_what_was_asked_for() -> None:
    assert choose_writer("python").way == "python"


def test_the_extension_refuses_what_is_no_member() -> None:
    try:
        batch = importlib.import_module(_MODULE)
    except ImportError:
        pytest.skip("the extension is not compiled")
    with pytest.raises(TypeError, match="must be of type Member"):
        batch.Writer(False).write({object(): None}, b"", b"")
    with pytest.raises(TypeError):
        batch.Writer(False).write([], b"", b"")
    with pytest.raises(TypeError):
        batch.Member(object(), 0)
