# What a gdb that drives `pvhboot boot --gdb` has to be told: that the CPU changes its mode.
#
# gdb decodes all code in one mode, and asks for a description of the registers once. At each stop this looks at the register
# cpu_bits, which the server has: if that has changed, gdb asks for the description anew, and is told the processor. On the
# way to 64-bit code it warns twice, as for a moment the two are at odds.

set osabi none
set $pvhboot_bits = 0

define hook-stop
  if $_thread != 0
    if $pvhboot_bits != $cpu_bits
      set $pvhboot_bits = $cpu_bits
      if $pvhboot_bits == 16
        unset tdesc filename
        set architecture i8086
      end
      if $pvhboot_bits == 32
        unset tdesc filename
        set architecture i386
      end
      if $pvhboot_bits == 64
        unset tdesc filename
        set architecture i386:x86-64
      end
    end
  end
end
