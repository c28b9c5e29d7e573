"""What the engines are called. Apart, as it is asked for where nothing else of them is imported."""

from typing import Final

UNICORN: Final = "unicorn"
KVM: Final = "kvm"
QEMU: Final = "qemu"
ENGINES: Final = (UNICORN, KVM, QEMU)

TCG: Final = "tcg"  # the accelerator of QEMU that is used unless another is asked for
ACCELERATORS: Final = (TCG, KVM)
BOTH: Final = "both"  # of them, to be measured
