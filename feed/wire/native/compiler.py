"""Compiles the native extension with the system's C compiler, where there is one: `python -m feed.wire.native.compiler`.

The build hook (build_hook.py) loads this file by its path, before anything of feed is installed: it imports nothing of feed.
"""

import os
import shlex
import subprocess  # nosec B404
import sys
import sysconfig
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("_batch.c")
TARGET = SOURCE.with_name("_batch.abi3.so")
_SECONDS = 120
"""How long the compiler may take."""


def compile_extension(target: Path = TARGET, *flags: str) -> str | None:
    """Compile the extension into `target`. Returns None, or in one line why that is not possible here.

    Where it is not possible there is no file afterwards: one of an older source would not fit.
    """
    if os.name != "posix" or sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "this Python takes no such extension"
    include = sysconfig.get_path("include")
    linking = ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    command = [
        *compiler,
        "-std=gnu11",
        "-O2",
        "-fPIC",
        "-fvisibility=hidden",
        *linking,
        *flags,
        f"-I{include}",
        str(SOURCE),
    ]
    try:
        target.unlink(missing_ok=True)
        if not (Path(include) / "Python.h").exists():
            return "Python.h is missing"
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".compiling-") as folder:
            made = Path(folder) / target.name
            # The command is the compiler that Python itself names, or the one of the caller's own environment.
            subprocess.run(  # nosec B603
                [*command, "-o", str(made)], check=True, capture_output=True, text=True, timeout=_SECONDS
            )
            made.replace(target)
    except FileNotFoundError:
        return f"there is no C compiler ({compiler[0]})"
    except subprocess.CalledProcessError as error:
        said = str(error.stderr).strip().splitlines()
        return f"the C compiler fails ({said[0] if said else f'exit code {error.returncode}'})"
    except (subprocess.TimeoutExpired, OSError) as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(compile_extension())
