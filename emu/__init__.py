"""The machine around the CPU, the engines that execute it, and the check of the handoff."""
