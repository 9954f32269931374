"""Writes a bill of materials of what the two lock files install, in CycloneDX's JSON: `python scripts/sbom.py OUT`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

LOCKS = [Path(__file__).parents[1] / name for name in ("torch.lock", "requirements.lock")]
PACKAGE = re.compile(
    r"^([a-z0-9][\w.-]*)(?:\[[\w,-]+\])?==([^\s;\\]+)((?:.*\\\n\s+--hash=sha256:[0-9a-f]{64})+)", re.MULTILINE
)
HASH = re.compile(r"sha256:([0-9a-f]{64})")


def bill(lock: str) -> dict[str, Any]:
    """The packages of lock files, each with its version and the hashes of its files.

    >>> found = bill("numpy==2.0.0 \\\\\\n    --hash=sha256:" + "a" * 64 + "\\n")
    >>> found["components"][0]["purl"]
    'pkg:pypi/numpy@2.0.0'
    """
    components = [_component(name, version, HASH.findall(rest)) for name, version, rest in PACKAGE.findall(lock)]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}


def _component(name: str, version: str, hashes: list[str]) -> dict[str, Any]:
    """A package; the hashes are of its files, one of which is installed."""
    files = [{"type": "distribution", "url": f"urn:sha256:{one}", "hashes": [_hash(one)]} for one in hashes]
    purl = f"pkg:pypi/{name}@{version}"
    component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return {**component, "externalReferences": files}


def _hash(content: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": content}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(bill("".join(lock.read_text() for lock in LOCKS)), indent=1) + "\n")
