"""From the keywords of a test to a plan, a firmware and a board; what is read for one machine is kept for the next."""

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from tempfile import TemporaryDirectory
from types import NoneType
from typing import Final, NamedTuple, TypedDict

from pvhboot.loader.fw_cfg import fw_cfg_items
from pvhboot.loader.image import BytesImage
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import LINUX, Module
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.loader.recording import Recording, read_recording
from pvhboot.loader.sizes import DEFAULT_MEMORY, parse_address, parse_memory, parse_reserved
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.abi.fw_cfg import FW_CFG_ARCH_LOCAL, FW_CFG_ENTRY_MASK
from pvhboot.shim.abi.x86 import IO_PORTS
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE, MachineSpec, Span
from pvhboot.shim.machines import machine as machine_named
from pvhboot.shim.stock import default_blob

from ..board import Board
from ..bus import Device
from ..engines.base import Engine, Limits
from ..engines.names import QEMU, UNICORN
from ..inputs import open_kernel, read_firmware
from ..session import get_engine

Path = str | os.PathLike[str]

_KERNELS_KEPT: Final = 8  # files
_PORT_WIDTH: Final = 4  # bytes: a device gets each access as the guest makes it

_read_blob = lru_cache(default_blob)


class Setup(NamedTuple):
    """All that a machine is made of, so that it can be made again. `items` replace, add or (None) take away items of
    fw_cfg, by key, and files, by name; `devices` are the test's own, by port or address, or a range of them."""

    plan: BootPlan
    blob: Blob
    engine: Engine
    limits: Limits
    recording: Recording | None
    items: Mapping[int | str, bytes | None]
    devices: Mapping[int | range, Device]

    def board(self, devices: Mapping[int | range, Device] | None = None) -> Board:
        """A new board; with `devices`, these in place of the test's own."""
        plan = self.plan
        items = None
        if self.items:
            changed = {key: None if data is None else BytesImage(data) for key, data in self.items.items()}
            files = {name.encode(): item for name, item in changed.items() if isinstance(name, str)}
            keyed = {key: item for key, item in changed.items() if isinstance(key, int)}
            whole = {**fw_cfg_items(plan, self.recording, files), **keyed}
            items = {key: item for key, item in whole.items() if item is not None}
        board = Board(plan, fw_cfg_items=items, recording=self.recording)
        for where, own in (self.devices if devices is None else devices).items():
            span = range(where, where + 1) if isinstance(where, int) else where
            name = device_name(self.devices[where])
            device = _OwnDevice(own, name)
            if not isinstance(span, range) or not span or span.step != 1 or span.start < 0:
                raise BootError(f"{name} at {span!r}: give a port or an address, or a range of them")
            for method in ("read(offset, size)", "write(offset, size, value)"):
                if not callable(getattr(own, method.partition("(")[0], None)):
                    raise BootError(f"{name} at {span.start:#x} is no device: it has no {method}")
            if span.stop <= IO_PORTS:
                board.bus.claim_ports(span.start, len(span), name, device, _PORT_WIDTH)
                continue
            hidden = (one.span for one in board.memory.regions if one.span.start < span.stop and span.start < one.span.end)
            for memory in hidden:
                raise BootError(f"{name} at {span.start:#x}: there is memory ({memory.name}), so that it would not be asked")
            board.bus.claim_memory(span.start, len(span), name, device)
        return board


def device_name(device: Device) -> str:
    """As the log of accesses calls a test's own device: the name of its class."""
    return type(device).__name__


class _OwnDevice:
    """A test's own device, whose answers are looked at: an engine would take anything for a number."""

    def __init__(self, device: Device, name: str) -> None:
        self._device, self._name = device, name

    def read(self, offset: int, size: int) -> int:
        """BootError for what is no value of a register."""
        value = self._device.read(offset, size)
        if not isinstance(value, int) or not 0 <= value < 1 << 8 * size:
            raise BootError(f"{self._name}.read({offset}, {size}) gives {value!r}: it is to be a number of {size} bytes")
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Tells the device."""
        self._device.write(offset, size, value)


class _Opened(NamedTuple):
    kernel: Kernel
    users: list[object]  # one for each machine that boots it


class Store:
    """Kernels that were opened, for all machines of a test run; `close` closes them."""

    def __init__(self) -> None:
        self._kernels: OrderedDict[tuple[object, ...], _Opened] = OrderedDict()
        self._builtin: Kernel | None = None

    def builtin(self) -> Kernel:
        """The conformance guest."""
        if self._builtin is None:
            self._builtin = open_kernel(None)
        return self._builtin

    def kernel(self, path: Path, opened: ExitStack) -> Kernel:
        """A kernel by its path, for as long as `opened` is; BootError for what is wrong with it. It is read again only if the
        file has changed since."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return opened.enter_context(Kernel.open(path))  # which says what is wrong
        key = (os.path.realpath(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        found = self._kernels.get(key)
        if found is None:
            found = self._kernels[key] = _Opened(Kernel.open(path), [])
        self._kernels.move_to_end(key)
        user = object()
        found.users.append(user)
        opened.callback(found.users.remove, user)
        for old in list(self._kernels)[:-_KERNELS_KEPT]:
            if not self._kernels[old].users:
                self._kernels.pop(old).kernel.close()
        return found.kernel

    def close(self) -> None:
        """Closes all of them."""
        while self._kernels:
            self._kernels.popitem()[1].kernel.close()


class Options(TypedDict, total=False):
    """The keywords of `pvh`, which docs/testing.md explains."""

    engine: str | Engine
    firmware: Path | bytes | Blob | None
    manifest: Path | None
    kernel: Path | bytes | Kernel | None
    machine: str
    memory: str | int | None
    append: str | None
    initrd: Path | bytes | None
    modules: Sequence[Module | Path]
    base: str | int | None
    reserve: Sequence[str | Span]
    guest: str
    dma: bool
    fw_cfg: Mapping[int | str, bytes | None]
    devices: Mapping[int | range, Device]
    recording: Path | Recording | None
    seconds: float | None


# Of the keywords that else would fail somewhere within, or be taken for something else: a text for a list of letters.
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "append": (str, NoneType),
    "devices": (Mapping,),
    "firmware": (str, os.PathLike, bytes, Blob, NoneType),
    "fw_cfg": (Mapping,),
    "initrd": (str, os.PathLike, bytes, NoneType),
    "kernel": (str, os.PathLike, bytes, Kernel, NoneType),
    "modules": (list, tuple),
    "reserve": (list, tuple),
    "seconds": (int, float, NoneType),
}


def _require_kinds(options: Options) -> None:
    for name, value in options.items():
        if name not in Options.__annotations__:
            raise BootError(f"a machine has no {name!r}; there is: {', '.join(Options.__annotations__)}")
        kinds = _KINDS.get(name)
        if kinds is not None and not isinstance(value, kinds):
            names = ["None" if kind is NoneType else kind.__name__ for kind in kinds]
            raise BootError(f"{name} is a {type(value).__name__}: give {' or '.join(names)}")
    for item, data in options.get("fw_cfg", {}).items():
        if isinstance(item, int) and item & (FW_CFG_ENTRY_MASK | FW_CFG_ARCH_LOCAL) != item:
            raise BootError(f"fw_cfg: no item can have the key {item:#x}")
        if not isinstance(item, int | str) or not isinstance(data, bytes | NoneType):
            raise BootError(f"fw_cfg: {item!r} is a {type(data).__name__}: give bytes or None, by a key or by a file's name")
    seconds = options.get("seconds")
    if seconds is not None and not seconds > 0:
        raise BootError(f"seconds={seconds}: give a number above 0")


def make_setup(store: Store, opened: ExitStack, options: Options) -> Setup:
    """What has to be closed goes to `opened`. BootError for the first keyword that there is not, or that cannot be."""
    _require_kinds(options)
    spec = machine_named(options.get("machine", BARE.name))
    engine = options.get("engine", UNICORN)
    chosen = get_engine(engine) if isinstance(engine, str) else engine
    blob = _blob(spec, options.get("firmware"), options.get("manifest"))
    recorded = _recording(options.get("recording"), spec)
    items, devices, dma = options.get("fw_cfg", {}), options.get("devices", {}), options.get("dma", True)
    if chosen.name == QEMU and (items or devices or recorded):
        raise BootError("the qemu engine brings fw_cfg and devices of its own: items, devices and recordings are not for it")
    if spec.source != FW_CFG and (items or not dma):
        raise BootError(f"the machine {spec.name} has no fw_cfg: there is nothing for {'fw_cfg' if items else 'dma'} to change")
    initrd, base, seconds = options.get("initrd"), options.get("base"), options.get("seconds")
    ram = _memory(options.get("memory"), recorded)
    plan = make_plan(
        spec,
        blob.data,
        _kernel(store, opened, options.get("kernel")),
        memory=ram,
        modules=[
            *([] if initrd is None else [_initrd(initrd, opened)]),
            *(module if isinstance(module, Module) else Module(os.fspath(module)) for module in options.get("modules", ())),
        ],
        cmdline=options.get("append"),
        base=parse_address(base, "base") if isinstance(base, str) else base,
        reserved=[parse_reserved(span, "reserve") if isinstance(span, str) else span for span in options.get("reserve", ())],
        guest=options.get("guest", LINUX),
        host_reserved=chosen.host_reserved(spec, ram),
        dma=dma,
    )
    limits = Limits() if seconds is None else Limits(seconds=seconds)
    return Setup(plan, blob, chosen, limits, recorded, items, devices)


def _blob(spec: MachineSpec, firmware: Path | bytes | Blob | None, manifest: Path | None) -> Blob:
    if manifest is not None and (firmware is None or isinstance(firmware, bytes | Blob)):
        raise BootError("a manifest is about the ROM of a file: name that as `firmware`")
    if isinstance(firmware, Blob):
        return firmware
    if firmware is None:
        return _read_blob(spec)
    if isinstance(firmware, bytes):
        return Blob(firmware, {}, (), {})
    return read_firmware(os.fspath(firmware), None if manifest is None else os.fspath(manifest))


def _kernel(store: Store, opened: ExitStack, kernel: Path | bytes | Kernel | None) -> Kernel:
    if isinstance(kernel, Kernel):
        return kernel
    if kernel is None:
        return store.builtin()
    if isinstance(kernel, bytes):
        return opened.enter_context(Kernel.from_bytes(kernel, "kernel of the test"))
    return store.kernel(kernel, opened)


def _memory(memory: str | int | None, recorded: Recording | None) -> int:
    if memory is None:
        return parse_memory(DEFAULT_MEMORY) if recorded is None else recorded.memory
    return parse_memory(memory) if isinstance(memory, str) else memory


def _recording(recording: Path | Recording | None, spec: MachineSpec) -> Recording | None:
    if recording is None:
        return None
    found = recording if isinstance(recording, Recording) else read_recording(os.fspath(recording))
    if found.machine != spec.name:
        raise BootError(f"a recording of {found.machine}, not of {spec.name}: say machine={found.machine!r}")
    return found


def _initrd(initrd: Path | bytes, opened: ExitStack) -> Module:
    if not isinstance(initrd, bytes):
        return Module(os.fspath(initrd))
    path = os.path.join(opened.enter_context(TemporaryDirectory(prefix="pvhboot-")), "initrd")
    with open(path, "wb") as file:
        file.write(initrd)
    return Module(path)
