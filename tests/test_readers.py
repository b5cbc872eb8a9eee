"""Files as they are read: what JSON lets through and UTF-8 does not."""

from helpers.collection.readers import read_texts


def test_half_an_emoji_is_read_as_a_question_mark_and_a_whole_one_stays(tmp_path):
    file = tmp_path / "corpus.jsonl"
    file.write_text(
        '{"_id": "a", "text": "smile \\ud83d there"}\n'
        '{"_id": "b", "title": "half \\ude00", "text": "more"}\n'
        '{"_id": "c", "text": "\\ud83d\\ude00 whole"}\n'
    )
    texts, _ = read_texts(file)
    assert texts == {"a": "smile ? there", "b": "half ? more", "c": "😀 whole"}
    assert all(text.encode("utf-8").decode("utf-8") == text for text in texts.values())
