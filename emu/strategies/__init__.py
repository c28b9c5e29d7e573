"""Machines and hosts for property-based tests of firmware, by hypothesis: those that must boot, and those that say anything.

    from hypothesis import given
    from pvhboot.emu.strategies import boots, contents, hostile_contents

`boots` draws a Boot: machine, memory, kernel, modules, command line. `contents` and `hostile_contents` draw what fw_cfg holds
instead of what it should; `memory_maps`, `hostile_memory_maps`, `e820_files`, `cmdlines`, `table_loaders`, `smbios_anchors` and
`setup_headers` draw the parts. docs/strategies.md says more. Kernel files are those of pvhboot.loader.strategies.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError:
    raise ImportError(
        "pvhboot.emu.strategies needs hypothesis: pip install 'pvhboot[test]' brings it", name="hypothesis"
    ) from None

from .boots import Boot, DrawnModule, DrawnSegment, boots
from .cmdlines import cmdlines
from .contents import HONEST, Contents, contents, hostile_contents
from .items import setup_header, setup_headers, smbios_anchors, table_loaders
from .memory_maps import e820_file, e820_files, hostile_memory_maps, memory_maps

__all__ = [
    "HONEST",
    "Boot",
    "Contents",
    "DrawnModule",
    "DrawnSegment",
    "boots",
    "cmdlines",
    "contents",
    "e820_file",
    "e820_files",
    "hostile_contents",
    "hostile_memory_maps",
    "memory_maps",
    "setup_header",
    "setup_headers",
    "smbios_anchors",
    "table_loaders",
]
