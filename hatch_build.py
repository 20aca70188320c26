"""Puts the datasets, their cards and the stored results into the wheel: a lone notebook has them.

An editable installation reads `data/` and `results/` where they lie, so nothing is copied there.
"""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version, build_data):
        if version == "editable":
            return
        root = Path(self.root)
        for folder in ("data", "results"):
            for path in sorted((root / folder).rglob("*")):
                parts = path.relative_to(root / folder).parts
                hidden = any(part.startswith((".", "__")) for part in parts)
                if path.is_file() and path.suffix != ".py" and not hidden:
                    inside = "/".join(("offrl_nb", f"_{folder}", *parts))
                    build_data["force_include"][str(path)] = inside
