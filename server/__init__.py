"""Settings, rooms, routes, metrics, persistence, lifecycle."""
