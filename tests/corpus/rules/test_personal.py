from __future__ import annotations

import pytest

from pangu_alpha.corpus.rules import Context, find_personal, masked, measures, normalise, profile
from pangu_alpha.corpus.rules.personal import KINDS, has_luhn_digit
from pangu_alpha.corpus.rules.table import RULE_NAMES

ALL = {kind.name: "mask" for kind in KINDS}


def kinds(text):
    return [found.kind.name for found in find_personal(text)]


def test_an_id_number_needs_its_own_check_digit():
    """Of the eleven possible last characters exactly one is right, whatever the digits before."""
    seen = set()
    for serial in range(200):
        stem = f"11010519491231{serial:03}"
        right = [each for each in "0123456789X" if "id_number" in kinds(f"号{stem}{each}。")]
        assert len(right) == 1
        seen |= set(right)
    assert seen == set("0123456789X")
    assert kinds("11010519491231002X") == kinds("11010519491231002x") == ["id_number"]


@pytest.mark.parametrize("number", ["11010519490231002X", "99010519491231002X", "11010517491231002X"])
def test_an_id_number_needs_a_date_and_a_province(number):
    stem = number[:17]
    assert all("id_number" not in kinds(stem + each) for each in "0123456789X")


def test_cards_need_their_luhn_digit():
    stem = "622202123456789012"
    assert sum("bank_card" in kinds(stem + str(digit)) for digit in range(10)) == 1
    assert has_luhn_digit("4111111111111111")
    assert kinds("卡号 6222 0212 3456 7890 128") == ["bank_card"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("旧号110105491231002。", "old_id_number"), ("电13812345678。", "mobile"),
        ("+86 138-1234-5678", "mobile"),
        ("１３８１２３４５６７８", "mobile"), ("010-62751234", "landline"), ("（0755）12345678", "landline"),
        ("0755－12345678", "landline"), ("138－1234－5678", "mobile"),
        ("信a.b@pku.edu.cn收", "email"), ("ａ＠ｂ．ｃｎ", "email"), ("服务器8.8.8.8。", "ip_address"),
        ("QQ：123456789", "qq"), ("qq群 12345", "qq"),
        ("微信号：abc_12345", "wechat"), ("VX:wx2020ab", "wechat"),
    ],
)  # fmt: skip
def test_each_kind_is_found(text, kind):
    assert kinds(text) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "统一社会信用代码91110108551385082Q", "信用代码914403000949349109",
        "ISBN 978-7-302-12345-6", "9787302123456",
        "消费者投诉电话12315",
        "报警110，急救120", "192.168.1.1 与 10.0.0.1 和 127.0.0.1", "2008-12345678",
        "1949年10月1日至2019年10月1日",
        "圆周率3.14159265358979323846", "订单号A13812345678B", "138123456789", "9.8.7.6.5", "微信公众平台",
        "QQ空间", "共110105491331002元", "1234567890123456", "人口14.1178亿", "文号〔2010〕12345678",
    ],
)  # fmt: skip
def test_other_numbers_survive(text):
    assert kinds(text) == []
    assert masked(text, ALL)[0] == text


def test_a_directory_of_thousands_of_numbers_is_masked_whole():
    text = "、".join(f"139{number:08d}" for number in range(5000))
    assert masked(text, ALL)[1] == {"mobile": 5000}


def test_masking_changes_only_the_number_and_the_rest_holds_its_place():
    text = "张三，QQ：123456789，手机１３８１２３４５６７８。"
    assert masked(text, ALL) == ("张三，QQ：<QQ号>，手机<手机号>。", {"qq": 1, "mobile": 1})
    assert masked(text, {**ALL, "qq": "keep"})[0] == "张三，QQ：123456789，手机<手机号>。"
    found = normalise(text, profile("pangu-alpha").normalise)
    assert found.masked == {"qq": 1, "mobile": 1}
    assert len(text) == len(found.text) + sum(found.removed.values())


def test_drop_makes_the_rule_fail_instead():
    context = Context(personal_actions={**ALL, "mobile": "drop"})
    measured = measures("电话13812345678，邮箱a@b.cn", context)
    assert measured[RULE_NAMES.index("personal_data")] == 1
