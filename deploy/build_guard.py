"""Build hook: refuse to build a package whose source links are missing.

``src/bperp`` holds four relative links to the code folders. A checkout without symbolic links
(some archives, some Windows settings) turns them into text files, and the build would quietly ship
an empty package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LINKS = ("flows", "kernels", "pipeline", "stores")


class BuildGuard(BuildHookInterface):
    """Check that each linked folder is reachable and is a package."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fail the build when a link does not lead to a package."""
        package = Path(self.root) / "src" / "bperp"
        missing = [name for name in LINKS if not (package / name / "__init__.py").is_file()]
        if missing:
            raise FileNotFoundError(
                f"src/bperp lacks {', '.join(missing)}: each must be a folder or a link to one; "
                "check out with symbolic links (git config core.symlinks true) and build again"
            )
