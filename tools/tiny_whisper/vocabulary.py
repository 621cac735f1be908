"""Whisper's own ids, with words where its subwords were. Pure.

Ids 0 to 255 are GPT-2's byte alphabet, so any text has tokens; then one token for each word with
a space before it; the rest up to 50,256 stands empty. The special ids are those of the
multilingual Whisper with 51,865 tokens.
"""

import functools
import re

from tools.tiny_whisper.words import WORDS

SIZE = 51_865
END, START = 50_257, 50_258
TRANSLATE, TRANSCRIBE, START_OF_LM, START_OF_PREVIOUS = 50_358, 50_359, 50_360, 50_361
NO_SPEECH, NO_TIMESTAMPS, FIRST_TIMESTAMP = 50_362, 50_363, 50_364

# in Whisper's order, which is that of their ids
_LANGUAGES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th "
    "ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr "
    "pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt "
    "haw ln ha ba jw su"
)
LANGUAGES = tuple(_LANGUAGES.split())

FIRST_WORD = 256
# before every word that is not the first of all, and before the first as Whisper has it
SPACE = "Ġ"


def language_id(code: str) -> int:
    return START + 1 + LANGUAGES.index(code)


@functools.cache
def byte_alphabet() -> tuple[str, ...]:
    """A printable character for each byte, by byte: GPT-2's, which every tokeniser expects."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable}
    names |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return tuple(names[byte] for byte in range(256))


@functools.cache
def _byte_ids() -> dict[str, int]:
    # GPT-2's order: those that are printable first
    return {name: index for index, name in enumerate(sorted(byte_alphabet()))}


def _written(text: str) -> str:
    return "".join(byte_alphabet()[byte] for byte in text.encode())


@functools.cache
def word_ids() -> dict[str, int]:
    """The id of each token of a word, by the token."""
    return {_written(" " + word): FIRST_WORD + index for index, word in enumerate(WORDS)}


@functools.cache
def word_id(word: str) -> int:
    return word_ids()[_written(" " + word)]


@functools.cache
def tokens() -> tuple[str, ...]:
    """Every token by its id. An empty place is `<id>`, which no text is ever split into."""
    names = [f"<{index}>" for index in range(END)]
    for name, index in (_byte_ids() | word_ids()).items():
        names[index] = name
    # by this one CTranslate2 tells that Whisper is multilingual; its size does not matter there
    names[-1] = ""
    names += ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES)]
    names += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"]
    names += ["<|nospeech|>", "<|notimestamps|>"]
    names += [f"<|{index * 0.02:.2f}|>" for index in range(1501)]
    return tuple(names)


_PIECE = re.compile(r" ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+")


def encode(text: str) -> list[int]:
    """The tokens of a text, as the tokeniser of the exported model gives them."""
    found: list[int] = []
    for piece in _PIECE.findall(text):
        written = _written(piece)
        word = word_ids().get(written)
        found += [word] if word is not None else [_byte_ids()[name] for name in written]
    return found


def decode(ids: list[int]) -> str:
    """The text of those ids that are words or bytes."""
    by_name = {name: byte for byte, name in enumerate(byte_alphabet())}
    written = "".join(tokens()[index] for index in ids if index < FIRST_WORD + len(WORDS))
    return bytes(by_name[name] for name in written).decode(errors="replace").strip()


@functools.cache
def used() -> tuple[int, ...]:
    """The ids that are trained; the others get a row that is never chosen."""
    special = (END, START, language_id("en"), language_id("fr"), TRANSCRIBE, START_OF_PREVIOUS)
    last = (NO_SPEECH, NO_TIMESTAMPS, FIRST_TIMESTAMP)
    return (*range(FIRST_WORD + len(WORDS)), *special, *last)


@functools.cache
def compact() -> dict[int, int]:
    """The place of each used id among the used ones."""
    return {index: place for place, index in enumerate(used())}
