"""Owns the build's check that the links to the roles are folders, not the text files some checkouts make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROLES = ("producer", "broker", "consumer")


class RoleLinks(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's generic parameter is its own configuration
    """Fails a build that would leave a role out of the package."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # hatchling's signature
        broken = [role for role in ROLES if not (Path(self.root) / "dfserve" / role / "__init__.py").is_file()]
        if broken:
            names = ", ".join(f"dfserve/{role}" for role in broken)
            raise RuntimeError(
                f"{names}: not a link to a folder. This checkout holds symbolic links as text files; "
                "run `git config core.symlinks true && git checkout -- dfserve`, then build again"
            )
