"""The build hook of Hatch: compiles the native extension into the wheel, and goes on without it where that fails."""

import importlib.util
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg, misc, unused-ignore]
    """Compiles the extension beside its source; of an editable installation that is where it is imported from."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the wheel for this platform if there is something in it that only fits this one."""
        compiler = _compiler(Path(self.root))
        failure = compiler.compile_extension()
        if failure is not None:
            self.app.display_info(f"feed is installed without its optional native extension: {failure}.")
            return
        build_data["artifacts"].append(compiler.TARGET.relative_to(self.root).as_posix())
        build_data["pure_python"] = False
        if sys.platform == "linux":
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"cp311-abi3-{platform}"
        else:
            build_data["infer_tag"] = True


def _compiler(root: Path) -> Any:
    spec = importlib.util.spec_from_file_location("compiler", root / "feed" / "wire" / "native" / "compiler.py")
    if spec is None or spec.loader is None:
        raise ImportError("feed/wire/native/compiler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
