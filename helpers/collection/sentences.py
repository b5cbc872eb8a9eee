"""Sentences that a reference page's authors wrote over its examples: "To write to separate sheets in a single file:".

Such a sentence says in a person's words what the function is used for, and the function is known. So the sentences are
queries with one known right passage each, and none of them was written by a language model. Which other passages would
be right too, nobody has judged.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from helpers.collection.text import normalise
from helpers.store.files import fingerprint

FEWEST_WORDS, MOST_WORDS = 4, 30
MOST_OF_A_PAGE = 4  # some pages are tutorials of fifty sentences
TEST_SHARE = 0.5  # of the functions
_UNDERLINE = re.compile(r"[-=~]{3,}\s*$")
_SENTENCE_END = re.compile(r"(?<=[.:!?])\s+(?=[A-Z])")
_ROLE = re.compile(r":[\w:]+:`~?\.?([^`<]*?)(?:\s*<[^`]*>)?`")
_MARKUP = re.compile(r"\s?\[\w+\]_|`+|\*\*?(?=\w)|(?<=\w)\*\*?(?=\W|$)|~(?=[a-z.])")


def _one_of(words: str) -> str:
    """A pattern of any of the words, which are patterns themselves; ``_`` stands for a blank in one."""
    return r"\b(?:" + "|".join(word.replace("_", r"\s") for word in words.split()) + r")\b"


# What points elsewhere, to a result or to names of the example's own variables.
_ELSEWHERE = re.compile(
    _one_of(
        r"""
        see refer https? tutorial gallery guide documentation docstring examples? (?:this|the)_(?:function|method|class)
        the_(?:keyword|argument|parameter) (?:that|these|this)_results? results_found compare_that show_that
        the_following verify confirm demonstrat\w+ illustrat\w+ [xyz] [a-z]\d
        """
    ),
    re.I,
)
# A short sentence that begins so could stand over the example of any function.
_ANYWHERE = re.compile(
    _one_of(
        """
        load import define set_up prepare construct create make generate plot show print display visuali[sz]e compare
        verify check consider confirm repeat inspect instantiate initiali[sz]e build run call illustrate demonstrate try
        use now
        """
    )
    + r"(\W+\w+){0,6}\W*$",
    re.I,
)
# What may stand before the verb of a task: "Suppose we want to", "You can", "Let's".
_LEAD = re.compile(
    r"((first|here|suppose|imagine|alternatively|instead|if),? )*"
    r"((let us|let's|(we|you|i)( can| could| may| might|'d| would)?( also)?( like to| want to| wish to| need to)?) )?",
    re.I,
)
_NARRATED = re.compile(
    r"((first|here),? )?(we|i)( now| then| first)? (?!can|could|may|might|want|wish|need|would)", re.I
)
# Words that a task begins with, in the forms that these five libraries' pages use.
_VERBS = frozenset(
    """
    add adjust aggregate align allow animate annotate append apply approximate arrange assign average balance bin blend
    broadcast calculate cast change choose classify clip cluster color colour combine compare compute concatenate
    constrain convert convolve copy correct count crop cut decode decompose decorate delete demodulate describe design
    detect determine differentiate discretize display divide downsample draw drop drag encode estimate evaluate exclude
    expand explode extract factor factorize fill filter find fit flatten flip force format get give group handle hide
    highlight ignore include increase index infer insert integrate interpolate interpret invert iterate join keep label
    limit list load locate look mark mask match maximize measure merge minimize modify move multiply name normalize
    obtain open order override overlay pad parse partition pass perform permute pick place plot point position predict
    preserve print project provide put quantize query raise rank read rearrange reconstruct recover reduce remove rename
    reorder repeat replace represent request resample rescale reset reshape resize restrict retrieve return reverse
    rotate round sample save scale search select separate serialize set shade shift show shuffle simulate skip slice
    smooth solve sort specify split stack standardize start store sub subtract sum supply suppress swap take test
    tile transform translate transpose treat truncate turn uncompress unpack update upsample use validate vary view
    visualize weight wrap write zoom
    """.split()
)
# A phrase without one of these words names a thing, not that it is so: "Uniform random numbers in a 2-D array:".
_STATES = re.compile(
    _one_of(
        """
        is are was were be been has have had can could will would should may might must does do did means? gives? shows?
        returns? corresponds? starts? appeared describes follows fail marks? lies? behaves increases? contains? works?
        equals? differs? becomes? exists? exceeds? requires? supports? takes? makes? uses? s t ve re ll remains?
        persists? depends? needs? suggests? indicates? allows? yields? produces? matches leads? occurs? sets? let we you
        our your
        """
    ),
    re.I,
)
_REMARK = re.compile(
    _one_of(
        r"""
        this that these those it its they note notice as however thus therefore hence so but and or since because there
        we you i our let which where while although otherwise similarly observe recall unlike suppose assume when if
        e\.g i\.e the_(?:above|same|result|results|output|original|default|previous) in_(?:this|the|our) by_default same
        now then next finally again starting start_by
        """
    ),
    re.I,
)


def _prose(page: str) -> Iterator[str]:
    """The paragraphs of prose in the section Examples of a docstring, each on one line."""
    lines = page.split("\n")
    heads = [i for i in range(len(lines) - 1) if lines[i].strip() and _UNDERLINE.match(lines[i + 1].strip())]
    start = next((i for i in heads if lines[i].strip() in ("Examples", "Example")), None)
    if start is None:
        return
    end = next((i for i in heads if i > start), len(lines))
    after_code = False
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines[start + 2 : end])):
        code = ">>>" in paragraph or paragraph.lstrip().startswith(("...", "..", "<"))
        if not code and not (after_code and not paragraph[:1].isupper()) and paragraph[:1].isalpha():
            yield " ".join(paragraph.split())
        after_code = code


def _cleaned(paragraph: str) -> Iterator[str]:
    """The sentences of a paragraph without markup."""
    for sentence in _SENTENCE_END.split(_MARKUP.sub("", _ROLE.sub(r"\1", paragraph))):
        yield sentence.replace("::", ":").strip()


def _plain(sentence: str) -> str:
    """The sentence without capitals and its last mark, to compare it with others."""
    return normalise(sentence).lower().rstrip(".:")


def is_task(sentence: str) -> bool:
    """Whether a sentence says what is to be done, not what was seen, and could not stand over any other example.

    It says so if it begins with a verb of ``_VERBS`` ("Sort by two columns", "We can sort by …"), with "To", or if it
    is a phrase without a verb.
    """
    if _ELSEWHERE.search(sentence) or _NARRATED.match(sentence):
        return False
    asked = sentence[_LEAD.match(sentence).end() :]
    if _ANYWHERE.match(asked):
        return False
    first = re.match(r"\w*", asked)[0].lower()
    if first in _VERBS or re.match(r"to \w+", sentence, re.I):
        return True
    return not (_REMARK.match(sentence) or _STATES.search(sentence) or "=" in sentence)


def _names(sentence: str, doc: str) -> bool:
    """Whether the sentence names the function that it belongs to, written together or apart."""
    words = re.findall(r"[a-z0-9]+", doc.rsplit(".", 1)[-1].lower())
    said = re.findall(r"[a-z0-9]+", sentence.lower())
    return "".join(words) in said or any(said[i : i + len(words)] == words for i in range(len(said)))


def author_sentences(pages: Mapping[str, str]) -> dict[str, list[str]]:
    """{doc_id: sentences from the page's Examples that say what is to be done}, without those that name the function.

    A sentence is left out when it has fewer than 4 or more than 30 words, comments on a result, points elsewhere, or
    stands on two pages; of a page at most four are taken. Source: the docstrings of the installed packages, read at run
    time.
    """
    found = {doc: [s for p in _prose(page) for s in _cleaned(p)] for doc, page in pages.items()}
    pages_with = Counter(same for said in found.values() for same in {_plain(s) for s in said})
    kept = {
        doc: [
            s
            for s in dict.fromkeys(said)
            if FEWEST_WORDS <= len(s.split()) <= MOST_WORDS
            and pages_with[_plain(s)] == 1
            and is_task(s)
            and not _names(s, doc)
        ]
        for doc, said in found.items()
    }
    return {doc: said[:MOST_OF_A_PAGE] for doc, said in kept.items() if said}


def sentence_splits(pages: Mapping[str, str]) -> dict[str, tuple[dict[str, str], dict[str, dict[str, int]]]]:
    """{"train": (queries, qrels), "test": (queries, qrels)} of the authors' sentences, split by function.

    A hash of the function's own name decides, so that ``DataFrame.clip`` and ``numpy.clip`` are in one split. Of a test
    page only the first sentence is taken, so that no page counts twice. Each query has one known positive, the page
    that it stands on, with grade 1; all other passages are unjudged.
    """
    splits: dict[str, tuple[dict[str, str], dict[str, dict[str, int]]]] = {"train": ({}, {}), "test": ({}, {})}
    for doc, said in author_sentences(pages).items():
        place = int(fingerprint("authors", doc.rsplit(".", 1)[-1].lower()), 16) / 16**16
        split = "test" if place < TEST_SHARE else "train"
        queries, qrels = splits[split]
        for i, sentence in enumerate(said[:1] if split == "test" else said):
            queries[f"{doc}/{i}"] = sentence.rstrip(".:")
            qrels[f"{doc}/{i}"] = {doc: 1}
    return splits
