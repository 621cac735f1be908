"""What can go wrong between audio and captions.

TranscriberError
├── EngineError           an engine cannot start or cannot transcribe
│   ├── EngineUnavailable it cannot run on this machine; another may
│   └── OutOfMemory       a batch was too large
└── WorkerError           the worker process is not there or breaks the protocol
    └── OverDeadline      it is at one batch for too long
"""


class TranscriberError(Exception):
    """Base of the errors of this package."""


class EngineError(TranscriberError):
    """An engine failed; its process is replaced."""


class EngineUnavailable(EngineError):
    """The engine cannot run here. The message says why, for an operator."""


class WorkerError(TranscriberError):
    """The worker's process or its socket failed."""


class OutOfMemory(EngineError):
    """A batch was too large for what is free."""


class OverDeadline(WorkerError):
    """A batch takes longer than any should: the engine hangs."""
