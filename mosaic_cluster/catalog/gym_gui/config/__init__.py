"""Where a worker may write."""
