"""The firmware and the contract that it speaks: ABI, assembler, image. Imports neither of the other rooms."""
