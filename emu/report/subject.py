"""What is about to run, as text: apart from what is said when it has."""

from pvhboot.loader.plan import BootPlan
from pvhboot.loader.sizes import show_size
from pvhboot.shim.blob import Blob


def subject_text(plan: BootPlan, blob: Blob) -> str:
    """One line: what is about to run."""
    moved = f", moved to {plan.segments[0].paddr:#x}" if plan.moved_by else ""
    kernel = f"{plan.kernel.path} ({plan.kernel.kind}, entry {plan.entry:#x}{moved})"
    patched = f", patched at {', '.join(blob.patched)}" if blob.patched else ""
    return f"{kernel} on {plan.spec.name} with {show_size(plan.ram_size)}, firmware {blob.sha256[:12]}{patched}"
