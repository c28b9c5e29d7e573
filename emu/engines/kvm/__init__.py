"""Real KVM, by ioctl from Python."""
