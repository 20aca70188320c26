"""Puts the datasets and their cards into the wheel, so that a lone notebook has them.

An editable installation reads `data/` where it lies, so nothing is copied there.
"""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version, build_data):
        if version == "editable":
            return
        root = Path(self.root)
        for path in sorted((root / "data").rglob("*")):
            parts = path.relative_to(root / "data").parts
            hidden = any(part.startswith((".", "__")) for part in parts)
            if path.is_file() and path.suffix != ".py" and not hidden:
                build_data["force_include"][str(path)] = "/".join(("offrl_nb", "_data", *parts))
