#!/bin/sh
# Makes speech.opus: half a minute of clear sentences by three voices, with pauses as people make.
# Needs flite and sox, and opusenc's work is done by sox's own Ogg Opus or ffmpeg; run it only to
# change the speech: the file is committed.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
number=10
say() { # voice, pause after it in seconds, text
    flite -voice "$1" -t "$3" -o "$work/said.wav"
    sox "$work/said.wav" -r 48000 -c 1 "$work/$number.wav" norm -6 pad 0 "$2"
    number=$((number + 1))
}
say slt 0.4 "please open the meeting and read the agenda for today"
say slt 0.7 "we talk about the budget first and then about the new project"
say rms 0.3 "the report is ready and i will send it to you in the morning"
say rms 0.8 "can you move the small table to the other window"
say awb 0.4 "there are seven people in the room and nine on the line"
say awb 0.6 "nobody has seen the letter that came on friday"
say slt 0.5 "thank you we will meet again next monday at ten"
say rms 0.9 "the music in the garden was quiet and the river was high"
sox "$work"/[0-9]*.wav "$work/all.wav"
python3 - "$work/all.wav" speech.opus <<'PY'
import sys
import av
source, target = sys.argv[1:]
with av.open(source) as reader, av.open(target, "w", format="ogg") as writer:
    stream = writer.add_stream("libopus", rate=48000, layout="mono")
    stream.bit_rate = 24000
    for frame in reader.decode(audio=0):
        frame.pts = None
        writer.mux(stream.encode(frame))
    writer.mux(stream.encode(None))
PY
