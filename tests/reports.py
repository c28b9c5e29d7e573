"""Pages of `report`, for tests: their data, made from a boot or read back from a file."""

import base64
import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.page.data import STEPS_MAX, Told, page_data, tell
from pvhboot.emu.session import get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.blob import Blob
from pvhboot.shim.machines import BARE, MIB, MachineSpec
from pvhboot.shim.stock import default_blob, default_guest

_PAYLOAD = re.compile(r'<script type="application/octet-stream" id="payload">([A-Za-z0-9+/=]*)</script>')


class Report(NamedTuple):
    """What a page is made of, and its data as a browser gets them."""

    told: Told
    data: dict[str, Any]


def report(
    spec: MachineSpec = BARE,
    *,
    engine: str = "unicorn",
    blob: Blob | None = None,
    kernel: bytes | None = None,
    until: str = "handoff",
    memory: int = 64 * MIB,
    cmdline: str = "hello",
    initrd: Path | None = None,
    steps: int = STEPS_MAX,
    seconds: float = 20.0,
    dma: bool = True,
) -> Report:
    """Of a boot of the conformance guest, or of the kernel that is given."""
    blob = blob or default_blob(spec)
    with Kernel.from_bytes(default_guest(64) if kernel is None else kernel, "guest") as loaded:
        modules = [] if initrd is None else [Module(str(initrd))]
        plan = make_plan(spec, blob.data, loaded, memory=memory, modules=modules, cmdline=cmdline, dma=dma)
        told = tell(plan, blob, get_engine(engine), Until(until), Limits(seconds=seconds), steps=steps)
        return Report(told, json.loads(json.dumps(page_data(told))))


def payload(page: str) -> dict[str, Any]:
    """The data in an HTML file."""
    found = _PAYLOAD.search(page)
    assert found is not None
    data: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(found[1])))
    return data


def number(value: int | str) -> int:
    """A number of the data, as the page reads it."""
    return int(value, 16) if isinstance(value, str) else value


def state_at(data: Mapping[str, Any], step: int) -> dict[str, int]:
    """All registers behind so many instructions."""
    names, changes = data["registers"], data["changes"]
    state = dict(zip(names, map(number, data["before"]), strict=True))
    count = sum(changes["counts"][:step])
    for register, value in zip(changes["registers"][:count], changes["values"][:count], strict=True):
        state[names[register]] = number(value)
    return state
