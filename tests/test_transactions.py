"""Card transactions: the rules that the shipped ones keep, the split by merchant, and one's own table or collection."""

import csv
import re
import unicodedata
from collections import Counter, defaultdict

import pytest
from fakes import save_beir
from sklearn.metrics import cohen_kappa_score

from helpers.collection.collection import Collection, own_name
from helpers.course.transactions import NEW, Transactions, bucket, checked, open_transactions, split_by_group
from helpers.store.files import DATA, WorkbookError

FOLDER = DATA / "transactions"


def rows(name: str) -> list[dict[str, str]]:
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


ROWS, POLICY, SECOND = rows("transactions.csv"), rows("categories.csv"), rows("second_labels.csv")
BY_ID = {row["id"]: row for row in ROWS}
CELLS = [cell for row in (*ROWS, *POLICY, *SECOND) for cell in row.values()]


def spelled(name: str) -> str:
    """Without capitals, accents, blanks and punctuation."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKD", name.casefold()))


def card_numbers(text: str) -> list[str]:
    """13 to 19 digits, in one piece or apart by blanks or hyphens."""
    return re.findall(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)", text)


def addresses(text: str) -> list[str]:
    return re.findall(r"[^\s@]+@[^\s@]+\.\w+", text)


def one_sentence(error) -> bool:
    """It ends with its only full stop that a blank or nothing follows."""
    return re.findall(r"[.!?](?=\s|$)|\n", str(error.value)) == ["."] and str(error.value).endswith(".")


@pytest.fixture(autouse=True)
def _no_own_transactions(monkeypatch):
    monkeypatch.delenv("TRANSACTIONS", raising=False)


@pytest.fixture(scope="module")
def shipped() -> Transactions:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRANSACTIONS", raising=False)
        return open_transactions()


@pytest.fixture
def by_number(monkeypatch):
    """A group's place is the number that its name ends with: below 55 train, below 70 dev, else test."""
    monkeypatch.setattr("helpers.course.transactions.bucket", lambda group, seed=0: int(group.split()[-1]) / 100)


# The shipped transactions


def test_there_are_many_rows_with_their_own_ids():
    assert len(ROWS) >= 1_200
    assert len(BY_ID) == len(ROWS)


def test_every_row_has_merchant_descriptor_date_amount_and_category():
    for row in ROWS:
        assert all(row[column].strip() for column in ("merchant", "descriptor", "currency", "department"))
        assert re.fullmatch(r"2025-\d\d-\d\d", row["date"])
        assert re.fullmatch(r"-?\d+\.\d\d", row["amount"])
        assert row["trade_show"] in ("", "yes")


def test_there_are_about_thirty_categories_with_thirty_rows_or_more():
    counts = Counter(row["category"] for row in ROWS)
    assert 28 <= len(counts) <= 36
    assert min(counts.values()) >= 30


def test_the_policy_describes_each_category_once_in_words_of_its_own():
    assert len({row["category"] for row in POLICY}) == len(POLICY)
    assert {row["category"] for row in POLICY} == {row["category"] for row in ROWS}
    for column in ("name", "description"):
        assert len({spelled(row[column]) for row in POLICY}) == len(POLICY)
    assert all(len(row["description"].split()) >= 8 and row["description"].endswith(".") for row in POLICY)


def test_many_merchants_sell_for_two_or_more_categories():
    categories = defaultdict(set)
    for row in ROWS:
        categories[row["merchant"]].add(row["category"])
    assert sum(len(found) >= 2 for found in categories.values()) >= 40


def test_a_merchant_is_spelled_in_one_way_and_a_descriptor_belongs_to_one_merchant():
    spellings, owners = defaultdict(set), defaultdict(set)
    for row in ROWS:
        spellings[spelled(row["merchant"])].add(row["merchant"])
        owners[spelled(row["descriptor"])].add(row["merchant"])
    assert [found for found in spellings.values() if len(found) > 1] == []
    assert [found for found in owners.values() if len(found) > 1] == []


def test_nothing_looks_like_a_card_number_or_an_address():
    assert [cell for cell in CELLS if card_numbers(cell) or addresses(cell)] == []


@pytest.mark.parametrize(
    "text", ["4111111111111111", "card 4111 1111 1111 1111.", "4222222222222", "4111-1111-1111-1111-111"]
)
def test_card_numbers_are_noticed(text):
    assert card_numbers(text)


def test_dates_amounts_and_long_references_are_no_card_numbers_and_an_address_is_noticed():
    assert card_numbers("2025-01-02, 31840.00, 123456789012, 12345678901234567890") == []
    assert addresses("ask jane.doe@example.com") == ["jane.doe@example.com"]


def test_second_labels_are_of_shipped_rows_and_of_every_category():
    assert len(SECOND) == len({row["id"] for row in SECOND}) == 252
    assert {row["id"] for row in SECOND} <= BY_ID.keys()
    assert {row["category"] for row in SECOND} == {row["category"] for row in POLICY}


@pytest.mark.parametrize("column", ["category", "trade_show"])
def test_second_labels_agree_with_the_first(column):
    first, second = [BY_ID[row["id"]][column] for row in SECOND], [row[column] for row in SECOND]
    assert len(set(second)) > 1
    assert cohen_kappa_score(first, second) > 0.9


def test_second_labels_were_not_copied():
    assert any(BY_ID[row["id"]]["category"] != row["category"] for row in SECOND)


# Their split


@pytest.mark.parametrize("spelling", [str, spelled])
def test_no_merchant_is_in_two_splits(shipped, spelling):
    sides = [{spelling(BY_ID[i]["merchant"]) for i in ids} for ids in shipped.splits.values()]
    assert min(map(len, sides)) > 50
    assert sum(map(len, sides)) == len(set.union(*sides))


@pytest.mark.parametrize("what", ["text", "descriptor"])
def test_no_text_and_no_descriptor_is_in_two_splits(shipped, what):
    said = {i: spelled(shipped.texts[i] if what == "text" else BY_ID[i]["descriptor"]) for i in shipped.texts}
    sides = [{said[i] for i in ids} for ids in shipped.splits.values()]
    assert sum(map(len, sides)) == len(set.union(*sides))


def test_shares_of_rows_and_merchants_are_near_55_15_and_30():
    known = [row for row in ROWS if row["category"] not in NEW]
    groups = {row["id"]: row["merchant"] for row in known}
    splits = split_by_group(groups)
    assert sum(map(len, splits.values())) == len(known)
    for ids, share in zip(splits.values(), (0.55, 0.15, 0.30), strict=True):
        merchants = len({groups[i] for i in ids}) / len(set(groups.values()))
        assert merchants == pytest.approx(share, abs=0.04)
        assert len(ids) / len(known) == pytest.approx(share, abs=0.06)


def test_each_known_row_is_in_one_split(shipped):
    ids = [i for split in shipped.splits for i in shipped.ids(split)]
    assert sorted(ids) == sorted(i for i, row in BY_ID.items() if row["category"] not in NEW)


def test_new_categories_are_in_test_alone(shipped):
    assert shipped.new == NEW
    found = {s: {shipped.labels[i] for i in ids} & set(NEW) for s, ids in shipped.splits.items()}
    assert found == {"train": set(), "dev": set(), "test": set(NEW)}
    assert len(shipped.ids("test", new=True)) >= 40
    assert shipped.ids("train", new=True) == shipped.ids("dev", new=True) == []


def test_rows_of_a_new_category_whose_merchant_is_not_in_test_are_in_no_split(shipped):
    placed = {i for ids in shipped.splits.values() for i in ids}
    missing = set(BY_ID) - placed
    assert missing
    assert {BY_ID[i]["category"] for i in missing} <= set(NEW)
    trained = {BY_ID[i]["merchant"] for s in ("train", "dev") for i in shipped.splits[s]}
    new = {i for i, row in BY_ID.items() if row["category"] in NEW}
    assert {i for i in new if BY_ID[i]["merchant"] in trained} <= missing
    assert {i for i in new if bucket(BY_ID[i]["merchant"]) >= 0.70} == new & placed


def test_every_known_category_is_trained_and_tested(shipped):
    known = {row["category"] for row in POLICY} - set(NEW)
    for split in ("train", "test"):
        counts = Counter(shipped.labels[i] for i in shipped.ids(split))
        assert set(counts) == known
        assert min(counts.values()) >= 2


def test_the_rule_is_no_category_and_concerns_many(shipped):
    assert "trade-shows" not in shipped.descriptions
    assert shipped.rule == {i for i, row in BY_ID.items() if row["trade_show"] == "yes"}
    assert len({shipped.labels[i] for i in shipped.rule}) >= 20
    assert all(len(shipped.rule & set(shipped.ids(split))) >= 16 for split in ("train", "test"))


def test_the_shipped_collection_asks_for_one_category_each(shipped):
    collection = shipped.collection()
    assert collection.corpus.keys() == {row["category"] for row in POLICY}
    assert collection.queries == shipped.texts
    for split, qrels in collection.qrels.items():
        assert qrels == {i: {BY_ID[i]["category"]: 1} for i in shipped.splits[split]}


# How they are read


@pytest.fixture
def small(tmp_path, monkeypatch, by_number) -> Transactions:
    (tmp_path / "transactions").mkdir()
    (tmp_path / "transactions" / "transactions.csv").write_text(
        "id,merchant,descriptor,date,amount,currency,department,place,memo,category,trade_show\n"
        "t1,Ahoy 10,AHOY BV,2025-01-02,6.00,EUR,Sales,Oslo,two pens,office,\n"
        "t2,Ahoy 10,AHOY BV,2025-01-03,7.50,EUR,Sales,online,,insurance,\n"
        "t3,Bold 60,BOLD,2025-01-04,8.00,NOK,,Oslo,NA,office,yes\n"
        "t4,Bold 60,BOLD POLICY,2025-01-04,9.00,NOK,Sales,Oslo,,insurance,\n"
        "t5,Calm 90,CALM,2025-01-05,1.00,EUR,Sales,Oslo,,insurance,\n"
        "t6,Calm 90,CALM,2025-01-05,2.00,EUR,Sales,Oslo,,office,\n"
    )
    (tmp_path / "transactions" / "categories.csv").write_text(
        "category,name,description\noffice,Office,Pens and paper.\ninsurance,Insurance,Premiums.\n"
    )
    monkeypatch.setattr("helpers.course.transactions.DATA", tmp_path)
    return open_transactions()


def test_a_text_is_what_is_known_but_date_merchant_and_category(small):
    assert small.texts["t1"] == "AHOY BV | 6.00 | EUR | Sales | Oslo | two pens"
    assert small.texts["t2"] == "AHOY BV | 7.50 | EUR | Sales | online"  # no memo, no bar
    assert small.texts["t3"] == "BOLD | 8.00 | NOK | Oslo | NA"  # NA is a word here


def test_labels_groups_descriptions_and_rule_are_those_of_the_files(small):
    assert small.labels == {i: "office" if i in ("t1", "t3", "t6") else "insurance" for i in small.texts}
    assert list(small.groups.values()) == ["Ahoy 10"] * 2 + ["Bold 60"] * 2 + ["Calm 90"] * 2
    assert small.descriptions == {"office": "Office. Pens and paper.", "insurance": "Insurance. Premiums."}
    assert small.rule == {"t3"}


def test_a_new_category_is_measured_on_merchants_of_test_alone(small):
    assert small.splits == {"train": ["t1"], "dev": ["t3"], "test": ["t5", "t6"]}  # t2 and t4 are nowhere
    assert (small.ids("test"), small.ids("test", new=True)) == (["t6"], ["t5"])
    qrels = small.collection().qrels
    assert qrels == {
        "train": {"t1": {"office": 1}},
        "dev": {"t3": {"office": 1}},
        "test": {"t6": {"office": 1}, "t5": {"insurance": 1}},
    }


def test_texts_and_labels_come_in_the_order_asked_for(small):
    assert small.of(["t5", "t3"]) == ([small.texts["t5"], small.texts["t3"]], ["insurance", "office"])
    assert small.of([]) == ([], [])


# The split


def test_shares_end_where_they_say(by_number):
    groups = {f"i{n:02d}": f"g {n}" for n in (0, 54, 55, 69, 70, 99)}
    assert split_by_group(groups) == {"train": ["i00", "i54"], "dev": ["i55", "i69"], "test": ["i70", "i99"]}
    new = frozenset(("i54", "i69", "i70"))
    assert split_by_group(groups, new) == {"train": ["i00"], "dev": ["i55"], "test": ["i70", "i99"]}


def test_a_group_stays_where_it_is_when_others_come_and_go():
    groups = {f"i{n:03d}": f"merchant {n % 60}" for n in range(240)}
    splits = split_by_group(groups)
    assert split_by_group(dict(reversed(groups.items()))) == splits
    fewer = split_by_group({i: g for i, g in groups.items() if g not in ("merchant 1", "merchant 2")})
    assert all(set(fewer[s]) <= set(splits[s]) for s in splits)
    assert sum(map(len, fewer.values())) == 240 - 8  # two groups of four rows


def test_places_are_spread_evenly_and_another_seed_gives_others():
    places = [bucket(f"merchant {n}") for n in range(2_000)]
    assert 0 <= min(places) < 0.01
    assert 0.99 < max(places) < 1
    assert sum(p < 0.55 for p in places) / 2_000 == pytest.approx(0.55, abs=0.04)
    assert bucket("Kumo") == bucket("Kumo") != bucket("Kumo", seed=1)


# One's own table

# Two rows of a and b in each split: 10 and 20 are in train, 60 and 65 in dev, 90 and 95 in test.
TABLE = [("tea 10", "a"), ("rent 20", "b"), ("tea 60", "a"), ("rent 65", "b"), ("tea 90", "a"), ("rent 95", "b")]


def written(folder, lines, header="text,label", name="own.csv"):
    separator = "\t" if name.endswith(".tsv") else ","
    head = separator.join(header.split(","))
    (folder / name).write_text("\n".join([head, *(separator.join(line) for line in lines)]) + "\n", encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("name", ["own.csv", "own.tsv", "OWN.CSV"])
def test_a_table_of_ones_own_is_split_by_its_texts(tmp_path, by_number, name):
    table = written(tmp_path, TABLE, name=name)
    data = open_transactions(table)
    assert data.texts == {f"r{n}": text for n, (text, _) in enumerate(TABLE, 1)}
    assert list(data.labels.values()) == ["a", "b"] * 3
    assert data.groups == data.texts
    assert data.splits == {"train": ["r1", "r2"], "dev": ["r3", "r4"], "test": ["r5", "r6"]}
    assert data.descriptions == {"a": "a", "b": "b"}
    assert (data.name, data.new, data.rule, data.notices) == (own_name(table), (), frozenset(), [])


@pytest.mark.parametrize(
    "header", ["text,label", "description,category", "memo,class", "descriptor,label", "Text,LABEL", "Memo,Category"]
)
def test_columns_may_have_other_names(tmp_path, by_number, header):
    data = open_transactions(written(tmp_path, TABLE, header))
    assert (data.texts["r2"], data.labels["r2"]) == ("rent 20", "b")


@pytest.mark.parametrize("header", ["text,label,merchant", "text,label,group", "text,label,Merchant"])
def test_a_merchant_column_keeps_rows_together(tmp_path, by_number, header):
    lines = [(text, label, "ACME, Inc. 10" if i == 4 else text) for i, (text, label) in enumerate(TABLE)]
    lines += [("other", "a", "acme inc 10"), ("tea", "a", "Tea-90")]
    path = written(tmp_path, [(text, label, f'"{merchant}"') for text, label, merchant in lines], header)
    data = open_transactions(path)
    assert data.groups["r5"] == data.groups["r7"] == "acme inc 10"
    assert data.groups["r8"] == "tea 90"
    assert data.splits == {"train": ["r1", "r2", "r5", "r7"], "dev": ["r3", "r4"], "test": ["r6", "r8"]}


def test_texts_alike_but_for_case_and_punctuation_are_together(tmp_path, by_number):
    data = open_transactions(written(tmp_path, [*TABLE, ("TEA * 90", "a")]))
    assert data.groups["r7"] == data.groups["r5"] == "tea 90"
    assert data.texts["r7"] == "TEA * 90"


def test_ids_are_in_the_order_of_the_rows(tmp_path):
    lines = [(f"text {n}", "ab"[n % 2]) for n in range(120)]
    data = open_transactions(written(tmp_path, lines))
    assert list(data.texts) == sorted(data.texts)
    assert (data.texts["r001"], data.texts["r120"]) == ("text 0", "text 119")
    assert sorted(i for ids in data.splits.values() for i in ids) == list(data.texts)


def test_blanks_around_a_label_do_not_make_another(tmp_path, by_number):
    lines = [(text, f" {label} ") if i % 3 else (text, label) for i, (text, label) in enumerate(TABLE)]
    assert set(open_transactions(written(tmp_path, lines)).labels.values()) == {"a", "b"}


def test_a_label_may_look_like_a_number_or_nothing(tmp_path, by_number):
    lines = [(text, {"a": "NA", "b": "007"}[label]) for text, label in TABLE]
    assert set(open_transactions(written(tmp_path, lines)).labels.values()) == {"NA", "007"}


def test_the_setting_names_a_table_and_a_path_overrules_it(tmp_path, by_number, monkeypatch):
    table, other = written(tmp_path, TABLE), written(tmp_path, TABLE, name="other.csv")
    monkeypatch.setenv("TRANSACTIONS", str(table))
    assert open_transactions().name == own_name(table)
    assert open_transactions(other).name == own_name(other)


def test_labels_that_fell_out_of_train_are_left_out_and_said(tmp_path, by_number):
    lines = [*TABLE, ("x 60", "d"), ("x 90", "d"), ("y 91", "c"), ("y 92", "c"), ("z 30", "e"), ("z 93", "e")]
    data = open_transactions(written(tmp_path, lines))
    assert data.notices == ["Left out, for no row of theirs fell into train: c, d."]
    assert {data.labels[i] for ids in data.splits.values() for i in ids} == {"a", "b", "e"}
    assert data.splits["test"] == ["r05", "r06", "r12"]


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (
            "note,label",
            "no text column (expected text or description or descriptor or memo, found note, label): rename",
        ),
        ("text,kind", "no label column (expected label or category or class, found text, kind): rename"),
    ],
)
def test_a_missing_column_is_named_with_those_found(tmp_path, header, named):
    path = written(tmp_path, TABLE, header)
    with pytest.raises(WorkbookError, match=re.escape(named)) as error:
        open_transactions(path)
    assert str(error.value).startswith(f"{path}: ")
    assert one_sentence(error)


@pytest.mark.parametrize(("at", "column"), [(0, "text"), (1, "label")])
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_cell_is_named_by_row_and_column(tmp_path, at, column, empty):
    lines = [list(line) for line in TABLE]
    lines[2][at] = lines[4][at] = empty
    path = written(tmp_path, lines)
    with pytest.raises(WorkbookError, match=f"row 3: {column} is empty: fill it in or drop the row") as error:
        open_transactions(path)
    assert str(error.value).startswith(f"{path}, ")
    assert one_sentence(error)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([(text, "a") for text, _ in TABLE], "all rows have the label 'a': two or more are needed"),
        ([*TABLE, ("x 10", "d"), ("y 10", "c")], "the label 'c' has one row: give it more rows or drop it"),
        ([(text.split()[0] + f" {n}", label) for n, (text, label) in enumerate(TABLE)], "6 rows are too few .*: add"),
        ([*TABLE[:2], *TABLE[4:]], "4 rows are too few to split into train, dev and test"),  # dev has none
        ([*TABLE[2:], ("x 10", "a")], "5 rows are too few"),  # train has a alone
    ],
    ids=["one class", "class with one row", "all in train", "none in dev", "one class in train"],
)
def test_a_table_that_teaches_nothing_is_one_sentence(tmp_path, by_number, lines, said):
    path = written(tmp_path, lines)
    with pytest.raises(WorkbookError, match=said) as error:
        open_transactions(path)
    assert str(error.value).startswith(f"{path}: ")
    assert one_sentence(error)


@pytest.mark.parametrize("name", ["own.txt", "own.xlsx", "own"])
def test_a_file_that_is_no_table_is_one_sentence(tmp_path, name):
    path = written(tmp_path, TABLE, name=name)
    with pytest.raises(WorkbookError, match="is neither csv nor tsv: save the table as a csv") as error:
        open_transactions(path)
    assert str(error.value).startswith(str(path))
    assert one_sentence(error)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_one_sentence(tmp_path, content):
    (tmp_path / "own.csv").write_text(content)
    with pytest.raises(
        WorkbookError, match=r"own\.csv is not a csv file that can be read .*: mend it or save it anew"
    ) as error:
        open_transactions(tmp_path / "own.csv")
    assert one_sentence(error)


@pytest.mark.parametrize("content", ["Dear all\nthe list\nis, as promised, here\n", 'text,label\n"open,a\nx,b\n'])
def test_a_file_that_is_called_csv_and_is_none_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "own.csv").write_text(content)
    with pytest.raises(
        WorkbookError, match=r"own\.csv is not a csv file that can be read .*: mend it or save it anew\.$"
    ) as error:
        open_transactions(tmp_path / "own.csv")
    assert "\n" not in str(error.value)


def test_a_path_that_leads_nowhere_is_one_sentence(tmp_path):
    with pytest.raises(WorkbookError, match=r"nowhere\.csv.*: correct the path") as error:
        open_transactions(tmp_path / "nowhere.csv")
    assert one_sentence(error)


def test_checked_names_where_the_rows_are_from():
    with pytest.raises(WorkbookError, match=r"^the table of Ann: all rows"):
        checked("n", "the table of Ann", {"1": "x", "2": "y"}, {"1": "a", "2": "a"}, {"1": "x", "2": "y"}, {"a": "a"})


# A collection


def beir(folder, second: dict[str, int]):
    """Queries t1 to t6 of TABLE, all about one label; of t3 the judgments of ``second`` as well."""
    queries = {f"t{n}": text for n, (text, _) in enumerate(TABLE, 1)}
    qrels = {f"t{n}": {label: 2} for n, (_, label) in enumerate(TABLE, 1)}
    qrels["t3"] |= second
    corpus = {"a": "Tea and coffee.", "b": "Rent of rooms.", "c": "Nobody asks for it."}
    splits = {"train": {q: qrels[q] for q in ("t1", "t2", "t5", "t6")}, "test": {q: qrels[q] for q in ("t3", "t4")}}
    save_beir(Collection("x", corpus, queries, splits), folder / "own")
    return folder / "own"


def test_a_collection_whose_queries_have_one_passage_each_gives_labels(tmp_path, by_number):
    data = open_transactions(beir(tmp_path, {"b": 0}))  # judged and not relevant: no second label
    assert data.texts == {f"t{n}": text for n, (text, _) in enumerate(TABLE, 1)}
    assert list(data.labels.values()) == ["a", "b"] * 3
    assert data.descriptions["b"] == "Rent of rooms."
    assert data.splits == {"train": ["t1", "t2"], "dev": ["t3", "t4"], "test": ["t5", "t6"]}  # by text, not by file
    assert data.collection().qrels["dev"] == {"t3": {"a": 1}, "t4": {"b": 1}}


def test_the_setting_may_name_a_collection(tmp_path, by_number, monkeypatch):
    monkeypatch.setenv("TRANSACTIONS", str(beir(tmp_path, {})))
    assert open_transactions().name == own_name(tmp_path / "own")


def test_a_query_with_two_relevant_passages_is_one_sentence(tmp_path, by_number):
    folder = beir(tmp_path, {"b": 1})
    with pytest.raises(
        WorkbookError, match=r"collection own-\w+ does not link every query to one passage.*: give"
    ) as error:
        open_transactions(folder)
    assert one_sentence(error)


def test_a_collection_without_judgments_is_one_sentence(tmp_path):
    save_beir(Collection("x", {"a": "Tea."}, {"q": "tea"}), tmp_path / "own")
    with pytest.raises(WorkbookError, match="does not link every query to one passage") as error:
        open_transactions(tmp_path / "own")
    assert one_sentence(error)


def test_the_transactions_saved_as_a_collection_can_be_opened_as_ones_own(tmp_path, shipped):
    save_beir(shipped.collection(), tmp_path / "copy")
    data = open_transactions(tmp_path / "copy")
    placed = {i for ids in shipped.splits.values() for i in ids}
    assert data.labels == {i: shipped.labels[i] for i in placed}
    assert data.descriptions == shipped.descriptions


def test_a_table_with_a_header_alone_is_refused(tmp_path):
    (tmp_path / "own.csv").write_text("text,label\n")
    with pytest.raises(WorkbookError, match=r"own\.csv has no rows"):
        open_transactions(tmp_path / "own.csv")


def test_more_cells_than_columns_are_refused_and_nothing_is_cut_silently(tmp_path):
    (tmp_path / "own.csv").write_text("text,label\nlunch, cheap,food\ntaxi, late,travel\n")
    with pytest.raises(WorkbookError, match="more cells than the header"):
        open_transactions(tmp_path / "own.csv")


def test_rows_without_a_merchant_are_each_their_own_group(tmp_path):
    rows = "\n".join(f"thing number {i},{'ab'[i % 2]}," for i in range(40))
    (tmp_path / "own.csv").write_text(f"text,label,merchant\n{rows}\n")
    assert len(set(open_transactions(tmp_path / "own.csv").groups.values())) == 40


def test_a_relative_path_is_found_from_the_workbooks_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    course = open_transactions("data/transactions/second_labels.csv".replace("second_labels", "transactions"))
    assert course.name == own_name(DATA / "transactions" / "transactions.csv")
    assert len(course.texts) >= 1200
