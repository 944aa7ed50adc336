"""Where evidence comes from: what proxies count themselves, and what others measure."""
