"""Kernel files for property-based tests, by hypothesis: valid ones with what is true of them, and hostile ones.

    from hypothesis import given
    from pvhboot.loader.strategies import kernels, pvh_kernels

`pvh_elves` and `pvh_kernels` draw a PvhKernel; `elves`, `bzimages` and `kernels` draw bytes. docs/strategies.md says more.
Nothing else of pvhboot needs hypothesis: `pip install 'pvhboot[test]'` brings it.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError:
    raise ImportError(
        "pvhboot.loader.strategies needs hypothesis: pip install 'pvhboot[test]' brings it", name="hypothesis"
    ) from None

from .hostile import elves
from .kernels import PvhKernel, pvh_elves
from .wrapped import bzimages, kernels, pvh_kernels

__all__ = ["PvhKernel", "bzimages", "elves", "kernels", "pvh_elves", "pvh_kernels"]
