"""Kind ``sweep``: many configurations, each with every seed, fairly compared."""
