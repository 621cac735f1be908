"""What Nextcloud alone may ask of the server."""

DOORS = [
    ("GET", "/enabled"),
    ("PUT", "/enabled?enabled=0"),
    ("POST", "/init"),
    ("GET", "/capabilities"),
    ("GET", "/api/v1/languages"),
    ("POST", "/api/v1/call/transcribe"),
    ("POST", "/api/v1/call/set-language"),
    ("POST", "/api/v1/call/leave"),
    ("DELETE", "/api/v1/call/transcribe/abc"),
]
