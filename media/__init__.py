"""From a WebRTC track to 16 kHz mono PCM, and text back. Alone imports aiortc."""
