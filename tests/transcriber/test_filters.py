import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcriber.filters import Never, Told, compression, never_said
from transcriber.types import SAMPLE_RATE, Evidence, Hypothesis, StreamId

TODAY = "Please open the meeting and read the agenda for today."
# What a person says in twenty seconds, in scripts that take two and three bytes a letter.
ORDINARY = {
    "en": "Today we are going to talk about the budget for the next quarter. I think that we "
    "should first look at the numbers of last year and then decide which department needs more "
    "money. In my opinion the sales department has done a very good job, but they need new "
    "people. Do you all agree with that, or does anybody have another suggestion?",
    "de": "Heute sprechen wir über den Haushalt des nächsten Quartals. Ich denke, dass wir zuerst "
    "die Zahlen des letzten Jahres ansehen und dann entscheiden sollten, welche Abteilung mehr "
    "Geld braucht. Sind alle damit einverstanden, oder hat jemand einen anderen Vorschlag?",
    "fr": "Aujourd'hui nous allons parler du budget du prochain trimestre. Je pense que nous "
    "devrions d'abord regarder les chiffres de l'année dernière, puis décider quel service a "
    "besoin de plus d'argent. Est-ce que tout le monde est d'accord ?",
    "es": "Hoy vamos a hablar del presupuesto del próximo trimestre. Creo que primero deberíamos "
    "mirar las cifras del año pasado y después decidir qué departamento necesita más dinero.",
    "ru": "Сегодня мы обсудим бюджет на следующий квартал. Я думаю, что сначала нам нужно "
    "посмотреть на цифры прошлого года, а потом решить, какому отделу нужно больше денег. По "
    "моему мнению, отдел продаж работал очень хорошо, но им нужны новые сотрудники.",
    "hi": "आज हम बैठक में अगले तिमाही के बजट पर चर्चा करेंगे। मुझे लगता है कि हमें पहले पिछले साल के "
    "आंकड़ों को देखना चाहिए, फिर यह तय करना चाहिए कि कौन से विभाग को ज्यादा पैसे की जरूरत है। मेरे "
    "विचार से बिक्री विभाग ने बहुत अच्छा काम किया है, लेकिन उन्हें नए कर्मचारियों की आवश्यकता है। क्या "
    "आप सभी इस बात से सहमत हैं, या किसी के पास कोई और सुझाव है? अगर नहीं तो हम अगले विषय पर बढ़ते "
    "हैं, जो कि नई वेबसाइट के बारे में है।",
    "th": "วันนี้เราจะมาพูดคุยกันเรื่องงบประมาณของไตรมาสหน้า ผมคิดว่าเราควรจะดูตัวเลขของปีที่แล้วก่อน "
    "จากนั้นค่อยตัดสินใจว่าแผนกไหนต้องการเงินเพิ่ม ในความเห็นของผม ฝ่ายขายทำงานได้ดีมาก "
    "แต่พวกเขาต้องการพนักงานใหม่ ทุกคนเห็นด้วยหรือไม่ หรือมีใครมีข้อเสนออื่นอีกไหม "
    "ถ้าไม่มีเราจะไปหัวข้อต่อไป ซึ่งก็คือเรื่องเว็บไซต์ใหม่ของบริษัท",
    "ta": "இன்று நாம் அடுத்த காலாண்டிற்கான வரவு செலவுத் திட்டம் பற்றி பேசப் போகிறோம். முதலில் கடந்த "
    "ஆண்டின் எண்களைப் பார்க்க வேண்டும் என்று நான் நினைக்கிறேன், பிறகு எந்தத் துறைக்கு அதிக பணம் தேவை "
    "என்று முடிவு செய்வோம். விற்பனைத் துறை மிகவும் நன்றாக வேலை செய்துள்ளது, ஆனால் அவர்களுக்கு புதிய "
    "ஊழியர்கள் தேவை.",
    "ja": "今日は来四半期の予算について話し合います。まず昨年の数字を見てから、どの部署にもっと"
    "お金が必要かを決めるべきだと思います。皆さんはこれに賛成ですか、それとも他に提案がありますか。",
}


def never(
    text: str,
    *,
    language: str = "en",
    logprob: float | None = -0.3,
    no_speech: float | None = 0.0,
    seconds: float = 10.0,
    prompt: str = "",
    glossary: str = "",
) -> Never | None:
    """Why a text is not shown of which so many seconds are speech."""
    hypothesis = Hypothesis(
        StreamId("ada"), 1, 1, True, text, language, evidence=Evidence(logprob, no_speech)
    )
    return never_said(hypothesis, Told(prompt, glossary, round(seconds * SAMPLE_RATE)))


# What passes


@pytest.mark.parametrize("language", ORDINARY)
def test_what_people_say_in_twenty_seconds_passes(language: str) -> None:
    assert never(ORDINARY[language], language=language, seconds=20.0) is None


@pytest.mark.parametrize(
    "text", ["Yeah.", "Yes.", "No.", "Okay.", "Mm-hmm.", "Hi!", "7", "Да.", "はい"]
)
@pytest.mark.parametrize("no_speech", [0.0, 0.6, None])
def test_short_answers_pass(text: str, no_speech: float | None) -> None:
    assert never(text, seconds=0.2, no_speech=no_speech, prompt=text, glossary=text) is None


def test_an_answer_that_is_said_thrice_passes() -> None:
    assert never("No, no, no.") is None
    assert never("Absolutely, absolutely, absolutely.") is None
    # its vowels are marks, and no ends of words
    assert never("बिल्कुल, बिल्कुल, बिल्कुल।", language="hi") is None


@pytest.mark.parametrize("text", ["", "…", "?"])
def test_without_words_there_is_nothing_to_take_back(text: str) -> None:
    assert never(text) is None


def test_a_text_passes_of_an_engine_that_says_not_how_sure_it_is() -> None:
    assert never(TODAY, logprob=None, no_speech=None) is None


def test_counting_and_a_song_pass() -> None:
    assert never("One, two, three, four, five, six, seven, eight, nine, ten, eleven.") is None
    assert never("Row, row, row your boat, gently down the stream, merrily, merrily.") is None


# Not sure of speech


@pytest.mark.parametrize(
    ("logprob", "no_speech", "reason"),
    [
        (-1.01, 0.61, Never.NO_SPEECH),
        (-1.0, 0.61, None),
        (-1.01, 0.6, None),
        (-1.01, None, None),
        (None, 0.99, None),
        (-0.3, 0.99, None),
        (-1.3, 0.0, None),
        (-1.31, 0.0, Never.UNSURE),
        (-1.31, None, Never.UNSURE),
        (-1.31, 0.9, Never.NO_SPEECH),
    ],
)
def test_a_text_that_the_engine_doubts_itself_is_not_shown(
    logprob: float | None, no_speech: float | None, reason: Never | None
) -> None:
    assert never(TODAY, logprob=logprob, no_speech=no_speech) is reason


# Loops


@pytest.mark.parametrize("length", [3, 4, 5, 6])
def test_a_phrase_that_is_said_over_and_over_is_a_loop(length: int) -> None:
    phrase = ["please", "open", "the", "next", "page", "now"][:length]
    assert never(" ".join(phrase * 3)) is Never.LOOP
    assert never(" ".join(phrase * 3 + phrase[:2])) is Never.LOOP
    assert never(" ".join(["so", *phrase * 3])) is Never.LOOP
    assert never(" ".join(phrase * 2)) is None
    assert never(" ".join(phrase * 3)[:-1]) is None  # the last word is another


def test_case_and_punctuation_do_not_hide_a_loop() -> None:
    assert never("Open the page. Open the page, open THE page!") is Never.LOOP


def test_a_loop_that_is_less_than_four_fifths_of_the_text_passes() -> None:
    loop = ["open", "the", "page"] * 4
    before = ["and", "so", "they", "sang"]
    assert never(" ".join([*before[:3], *loop])) is Never.LOOP  # 12 of 15
    assert never(" ".join([*before, *loop])) is None


def test_a_text_that_compresses_like_a_loop_is_not_shown() -> None:
    # sixteen words a round: more than a loop is looked for
    song = "we will go on and we will sing this together until the sun comes up again "
    twice, more = song * 2 + song[:8], song * 2 + song[:16]
    assert 2.2 < compression(twice) < 2.4 < compression(more) < 2.5
    assert never(twice) is None
    assert never(more) is Never.REPETITIVE


@pytest.mark.parametrize(
    ("text", "language"),
    [("ご視聴ありがとうございました。" * 8, "ja"), ("धन्यवाद" * 12, "hi"), ("a" * 60, "en")],
)
def test_a_loop_without_spaces_is_found_by_how_it_compresses(text: str, language: str) -> None:
    assert never(text, language=language, seconds=20.0) is Never.REPETITIVE


def test_how_a_text_compresses_does_not_depend_on_its_script() -> None:
    latin = ORDINARY["en"]
    hindi = latin.translate({n: 0x0900 + n for n in range(0x20, 0x7F)})
    assert compression(hindi) == compression(latin)


# Echoes


def test_the_rooms_own_words_are_an_echo_at_any_pace() -> None:
    glossary = "Kubernetes, Grafana, Prometheus, Loki, Tempo"
    assert never("Grafana Prometheus Loki Tempo", glossary=glossary) is Never.ECHO
    assert never("Kubernetes, Grafana, Prometheus, Loki, Tempo.", glossary=glossary) is Never.ECHO
    assert never("Grafana, Prometheus, Loki.", glossary=glossary) is None  # three may be said
    assert never("We use Grafana, Prometheus, Loki and Tempo.", glossary=glossary) is None
    assert never("Grafana Loki Prometheus Tempo", glossary=glossary) is None


def test_a_word_of_the_glossary_is_a_whole_one() -> None:
    assert never("rust is a language", glossary="trust is a language") is None
    assert never("rust is a language", glossary="rust is a languages") is None


def test_who_repeats_a_sentence_at_the_pace_of_speech_is_heard() -> None:
    assert never(TODAY, prompt=f"Well. {TODAY}", seconds=3.0) is None
    assert never(TODAY, prompt=f"Well. {TODAY}", seconds=3.0, no_speech=0.3) is None
    assert never(TODAY, prompt=f"Well. {TODAY}", seconds=3.0, no_speech=None) is None


def test_what_was_said_before_is_an_echo_where_nobody_could_have_said_it_again() -> None:
    assert never(TODAY, prompt=f"Well. {TODAY}", seconds=1.0) is Never.ECHO
    assert never(TODAY, prompt=f"Well. {TODAY}", seconds=3.0, no_speech=0.31) is Never.ECHO
    assert never(TODAY, prompt="Well.", seconds=1.0) is None
    assert never("Read the agenda.", prompt=TODAY, seconds=0.1) is None  # three words


def test_an_echo_is_too_fast_from_25_characters_a_second_on() -> None:
    said = "aaaa bbbb cccc ddddddd"  # 24 with the spaces around it
    assert never(said, prompt=said, seconds=24 / 25) is None
    assert never(said, prompt=said, seconds=24 / 25 - 0.001) is Never.ECHO


# Stock phrases


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Thank you.", "en"),
        ("Thank you!", "en-GB"),
        ("Thanks for watching!", "en"),
        ("Subtitles by the Amara.org community", "en"),
        ("Vielen Dank.", "de"),
        ("Untertitelung des ZDF, 2020", "DE"),
        ("Merci d'avoir regardé cette vidéo !", "fr"),
        ("Sous-titres réalisés par la communauté d'Amara.org", "fr"),
        ("¡Suscríbete al canal!", "es"),
    ],
)
def test_thanks_over_no_speech_were_never_said(text: str, language: str) -> None:
    assert never(text, language=language, seconds=0.2) is Never.STOCK
    assert never(text, language=language, seconds=3.0) is None


def test_thanks_are_said_in_no_less_than_their_characters_take() -> None:
    assert never("Thank you.", seconds=9 / 25) is None
    assert never("Thank you.", seconds=9 / 25 - 0.001) is Never.STOCK


def test_a_stock_phrase_is_the_whole_text_in_its_own_language() -> None:
    assert never("Thank you, Bob.", seconds=0.1) is None
    assert never("Thank you.", language="de", seconds=0.1) is None
    assert never("Gracias.", language="pt", seconds=0.1) is None
    assert never("Merci.", language="", seconds=0.1) is None


# Properties


@given(st.text(max_size=60), st.sampled_from(["en", "de", "xx", ""]), st.floats(0, 5))
def test_any_text_is_judged(text: str, language: str, seconds: float) -> None:
    never(text, language=language, seconds=seconds, prompt=text, glossary=text)


@given(st.lists(st.sampled_from(["abc", "defgh", "ij", "klmno"]), max_size=9), st.floats(-1.0, 0.0))
def test_less_than_nine_words_that_were_said_at_leisure_pass(
    words: list[str], logprob: float
) -> None:
    """No loop is so short, and nothing is told that they could echo."""
    if len(words) < 9:
        assert never(" ".join(words), logprob=logprob, no_speech=0.6, seconds=30.0) is None
