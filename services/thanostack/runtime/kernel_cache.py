"""Which kernels a component uses, and which of them no cache holds yet.

    sources of the component ──scan imports──> kernel modules it uses ──not cached──> cold kernels

Compiled kernels are stored by content (`lib/kernels/_store`). Sources are scanned, not imported:
what a component uses must be known before its import begins. Compiling is `kernel_pool`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from thanostack.lib.kernels import _store

KERNELS: Final = "thanostack.lib.kernels."
_PACKAGE: Final = Path(__file__).parent.parent
_FOLDER: Final = _PACKAGE / "lib" / "kernels"
_IMPORT = re.compile(
    r"^\s*(?:from|import) (thanostack[\w.]*)(?: import (?:\(([^)]*)\)|([^\n(#]*)))?", re.MULTILINE
)
_NAME = re.compile(r"^@kernel\([^\n]*(?:\n(?!def ).*)*\ndef (\w+)", re.MULTILINE)
WRITE_PATH: Final = (
    "head_create", "head_resolve", "head_apply", "label_canonicalise", "remote_write_scan",
    "wal_encode_series", "head_stage", "wal_frame", "message_runs", "head_labels",
    "head_rehash_rows", "head_rehash_pairs",
)  # fmt: skip
"""What the first write needs, the slowest to compile first."""
ROUTE_PATH: Final = (
    "hashring_series_hashes", "forward_scan", "forward_group", "forward_gather", "message_runs",
    "hashring_place_ketama", "hashring_place_hashmod", "quorum_count",
)  # fmt: skip
"""What the first write to a router needs."""
PLAIN_SELECTOR: Final = (
    "write_json_series", "sort_label_runs", "xor_decode", "instant_rows", "intern_pairs",
    "head_snapshot", "intern_sets", "edit_label_runs", "head_find_pair", "split_lanes",
    "encode_sets", "take_label_runs", "xor_sample_counts",
)  # fmt: skip
"""What a query such as `up` needs besides."""
_RANK: Final = {name: rank for rank, name in enumerate((*WRITE_PATH, *PLAIN_SELECTOR))}


def kernel_modules_of(component: str) -> list[str]:
    """Return the kernel modules that a component's sources reach by imports."""
    seen: set[str] = set()
    waiting = [f"thanostack.{component}.wiring"]
    while waiting:
        name = waiting.pop()
        source = _source_of(name)
        if name in seen or source is None:
            continue
        seen.add(name)
        waiting += _imports(source.read_text(encoding="utf-8"))
    modules = {name.removeprefix(KERNELS) for name in seen if name.startswith(KERNELS)}
    # The others load kernels, or compile them.
    return sorted(name for name in modules if not name.startswith("_"))


def all_kernel_modules() -> list[str]:
    """Return every kernel module, whoever uses it."""
    return sorted(path.stem for path in _FOLDER.glob("[a-z]*.py"))


def kernels_in(module: str) -> list[str]:
    """Return the kernels that a module defines."""
    return _NAME.findall((_FOLDER / f"{module}.py").read_text(encoding="utf-8"))


def cold_kernels(modules: Iterable[str]) -> list[tuple[str, str]]:
    """Return (module, kernel) of what no cache has, the write path first."""
    cold = [
        (KERNELS + module, name)
        for module in modules
        for name in kernels_in(module)
        if not _store.has(module, name)
    ]
    return sorted(cold, key=lambda kernel: _RANK.get(kernel[1], len(_RANK)))


def copy_kernels(folder: Path) -> None:
    """Copy every compiled kernel of this source into a folder, and nothing else of the cache.

    Raises:
        LookupError: if one is not compiled.
    """
    for module in all_kernel_modules():
        for name in kernels_in(module):
            _store.copy(module, name, folder)


def _imports(text: str) -> Iterable[str]:
    for package, several, one in _IMPORT.findall(text):
        yield package
        # A trailing comma leaves an empty name.
        for name in filter(str.strip, (several or one).split(",")):
            yield f"{package}.{name.split(' as ')[0].strip()}"


def _source_of(module: str) -> Path | None:
    path = _PACKAGE.parent.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
