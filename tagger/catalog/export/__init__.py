"""Final values, handed on to other programs and to people."""
