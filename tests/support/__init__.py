"""What the black-box tests stand on: real processes and strict clients of our own."""
