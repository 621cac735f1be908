"""From PCM to captions. Alone imports an engine, and only in the worker process."""
