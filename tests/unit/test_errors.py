from service.errors import count, nearest


def test_the_nearest_name_is_suggested():
    assert nearest("amout", ["amount", "age"]) == " (is it 'amount'?)"
    assert nearest("zzz", ["amount", "age"]) == ""


def test_a_very_long_name_is_not_compared():
    # Comparing takes memory and time that grow with the text: 15 million characters took seconds.
    assert nearest("A" * 15_000_000, ["A" * 10, "B"]) == ""
    assert nearest("amout", ["amount" * 1_000_000]) == ""


def test_counts_have_singular_or_plural_nouns():
    assert (count(1, "row"), count(2000, "row")) == ("1 row", "2,000 rows")
