"""Texts as the course compares them: words for counting, one normal form, the language they are in."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

import Stemmer
from bm25s.stopwords import STOPWORDS_EN

_STEM = Stemmer.Stemmer("english")
_WORD = re.compile(r"[^\W_]+")
# Frequent little words that the other languages in the list do not have.
_LITTLE = {
    "English": "the and of to is that for with are this you not from have which",
    "German": "der die und das nicht ist mit ein eine auf für von werden sich dem",
    "French": "le les des est une dans pour que qui sur pas vous avec sont cette",
    "Spanish": "el los las una para con por está como más pero este ser y del",
    "Italian": "il di che per non una sono gli della nel anche più questo essere come",
    "Portuguese": "os uma não para com mais como dos foi são ao pelo você este ser",
    "Dutch": "de het een van en niet zijn op voor met dat aan ook worden deze",
    "Polish": "i w na z do nie jest się to że jak dla od po przez",
    "Swedish": "och att det som en på är av för med till den inte om ett",
}
MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"


def tokenize(text: str) -> list[str]:
    """Lower-case words without English stop words, stemmed (Snowball); ``read_fwf`` gives ``read`` and ``fwf``."""
    return _STEM.stemWords([w for w in _WORD.findall(text.lower()) if w not in STOPWORDS_EN])


def normalise(text: str) -> str:
    """The text with every run of white space as one blank; texts that agree in this count as the same everywhere."""
    return " ".join(text.split())


def guess_language(texts: Iterable[str], sample: int = 300) -> str | None:
    """The language of most of the texts, or their script where it is not Latin; None for English, or if nothing tells.

    The guess counts frequent short words. Code and labels of two words hold none of them, and give None.
    """
    chosen = [text[:1000] for text in texts]
    joined = " ".join(chosen[:: max(1, len(chosen) // sample)]).lower()
    scripts = Counter(unicodedata.name(c, "?").split()[0] for c in joined[:20_000] if c.isalpha())
    if not scripts:
        return None
    script, count = scripts.most_common(1)[0]
    if script != "LATIN":
        return f"the {script.title()} script" if count > 0.5 * scripts.total() else None
    words = Counter(re.findall(r"[^\W\d_]+", joined))
    hits = {name: sum(words[w] for w in little.split()) for name, little in _LITTLE.items()}
    best = max(hits, key=lambda name: (hits[name], name == "English"))
    different = sum(words[w] > 0 for w in _LITTLE[best].split())
    clear = different >= 3 and hits[best] > 0.04 * words.total() and hits[best] > 1.5 * hits["English"]
    return best if clear and best != "English" else None
