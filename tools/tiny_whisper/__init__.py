"""A small model of the Whisper architecture, trained on synthetic speech, for the tests."""
