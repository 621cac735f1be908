"""Who talks to whom: browser sessions and WHIP."""
