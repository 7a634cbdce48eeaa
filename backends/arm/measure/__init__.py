"""What a program costs: instructions counted under qemu, cycles modelled, or time taken."""
