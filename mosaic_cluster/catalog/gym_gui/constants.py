"""Numbers shared by workers, as far as they use them."""

DEFAULT_SEED = 1
