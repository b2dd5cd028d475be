"""Log constants, as far as workers use them."""
