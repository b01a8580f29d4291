use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// The schemes' published test numbers.
const NUMBERS: [&str; 16] = [
    "4111111111111111",
    "4222222222222",
    "4000000000000000006",
    "5555555555554444",
    "2223003122003222",
    "378282246310005",
    "341111111111111",
    "6011111111111117",
    "6500000000000002",
    "3530111333300000",
    "3566002020360505",
    "30569309025904",
    "36227206271667",
    "38520000023237",
    "6200000000000005",
    "6759649826438453",
];

#[test]
fn finds_the_test_numbers_of_every_scheme() {
    for number in NUMBERS {
        assert_eq!(find(number), std::slice::from_ref(&(0..number.len())), "{number}");
        let sentence = format!("bayar pakai {number}, ya?");
        assert_eq!(redact(&sentence).0, "bayar pakai [card number], ya?", "{number}");
    }
}

#[test]
fn a_wrong_check_digit_is_no_card() {
    for number in NUMBERS {
        let (rest, last) = number.split_at(number.len() - 1);
        let last: u8 = last.parse().unwrap();
        for other in (0..10).filter(|other| *other != last) {
            assert!(!contains(&format!("{rest}{other}")), "{rest}{other}");
        }
    }
}

#[test]
fn brand_and_length_must_fit() {
    // All pass Luhn: a Visa of 15 digits, an Amex of 16, no issuer's.
    for number in ["411111111111116", "3782822463100050", "1111111111111117", "7992739871300000"] {
        let digits: Vec<u8> = number.bytes().map(|byte| byte - b'0').collect();
        let passes = luhn(&digits);
        assert!(!contains(number), "{number} (luhn: {passes})");
    }
}

#[test]
fn separators_are_single_spaces_and_dashes() {
    for text in [
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111 1111-1111 1111",
        "4111\u{a0}1111\u{2013}1111\u{2011}1111",
        "3782 822463 10005",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "41 11 11 11 11 11 11 11",
    ] {
        assert_eq!(redact(text), (Cow::Borrowed(REDACTED), 1), "{text}");
    }
    for text in ["4111  1111 1111 1111", "4111--1111-1111-1111", "4111\n1111\n1111\n1111"] {
        assert!(!contains(text), "{text}");
    }
}

#[test]
fn digits_of_other_scripts_count() {
    for zero in ['\u{ff10}', '\u{660}', '\u{966}', '\u{1b50}', '\u{1d7ce}'] {
        let text: String = "4111111111111111"
            .chars()
            .filter_map(|c| char::from_u32(zero as u32 + c.to_digit(10)?))
            .collect();
        assert_eq!(redact(&text), (Cow::Borrowed(REDACTED), 1), "{text}");
    }
    assert!(contains("卡号4111111111111111谢谢"));
}

#[test]
fn parts_of_longer_things_are_left() {
    for text in [
        "41111111111111111111",
        "041111111111111111110",
        "order_41111111-1111-4111-8111-111111111111",
        "a41111111111111111bc2",
        "0a1b2c3d4111111111111111",
        "d4111111111111111e0f1a2b3c4d5e6f",
        "sk1x9Q4111111111111111zT7",
        "41111111-1111-4111-8111-111111111111",
        "a 4000000000000000-0000-4000-8000-000000000000 b",
        "+6281234567893",
        "",
        "halo, apa kabar?",
        "2026-11-22 16:14:21",
    ] {
        assert!(!contains(text), "{text}");
    }
}

#[test]
fn letters_beside_a_number_do_not_hide_it() {
    for number in NUMBERS {
        for (before, after) in [
            ("kartu", ""),
            ("a", ""),
            ("_", ""),
            ("", "x"),
            ("", "f"),
            ("order_", "_2"),
            ("No", "cvv123"),
        ] {
            let text = format!("{before}{number}{after}");
            assert_eq!(redact(&text).0, format!("{before}{REDACTED}{after}"), "{text}");
        }
    }
    assert_eq!(redact("kartu4111 1111 1111 1111ya").0, "kartu[card number]ya");
}

#[test]
fn invisible_characters_do_not_hide_a_number() {
    for hidden in ['\u{200b}', '\u{200c}', '\u{200d}', '\u{feff}', '\u{2060}', '\u{ad}'] {
        let between: String = "4111111111111111".chars().flat_map(|c| [c, hidden]).collect();
        assert_eq!(find(&between).len(), 1, "{hidden:?}");
        let spaced = format!("4111{hidden} 1111 {hidden}1111{hidden}{hidden} 1111");
        assert_eq!(redact(&spaced), (Cow::Borrowed(REDACTED), 1), "{hidden:?}");
    }
}

#[test]
fn neighbours_do_not_hide_a_number() {
    assert_eq!(redact("2 4111 1111 1111 1111").0, "2 [card number]");
    assert_eq!(redact("4111111111111111 123").0, "[card number] 123");
    assert_eq!(
        redact("5555555555554444 4111111111111111"),
        ("[card number] [card number]".into(), 2)
    );
    assert_eq!(redact("(4111111111111111)").0, "([card number])");
    assert_eq!(redact("12/30,4111111111111111/12").0, "12/30,[card number]/12");
    let after_uuid = "41111111-1111-4111-8111-111111111111 4111111111111111";
    assert_eq!(redact(after_uuid).0, "41111111-1111-4111-8111-111111111111 [card number]");
}

/// What this thread has had of the processor: other threads do not count.
fn busy() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap())
}

#[test]
fn long_texts_take_linear_time() {
    let pieces =
        ["4", "4 ", "4-1 ", "4111111111111111 ", "41111111-1111-4111-8111-11111111111", "４"];
    for piece in pieces {
        let text = |bytes: usize| piece.repeat(bytes / piece.len());
        let (short, long) = (text(16 * 1024), text(64 * 1024));
        let time = |text: &str| {
            let run = || {
                let begun = busy();
                std::hint::black_box(find(text));
                busy().saturating_sub(begun)
            };
            (0..10).map(|_| run()).min().unwrap_or(Duration::MAX)
        };
        let (short, long) = (time(&short), time(&long));
        // Quadratic would be sixteen times.
        assert!(long < short * 10 + Duration::from_millis(2), "{piece}: {short:?}, {long:?}");
    }
}

fn check_digit(payload: &[u8]) -> u8 {
    let with = |last: u8| [payload, &[last]].concat();
    (0..10).find(|last| luhn(&with(*last))).unwrap()
}

/// Numbers of every kind that are cards, as digits.
fn card() -> impl Strategy<Value = Vec<u8>> {
    let brand = prop_oneof![
        Just(("4", 16)),
        Just(("4", 13)),
        Just(("52", 16)),
        Just(("2500", 16)),
        Just(("37", 15)),
        Just(("6011", 17)),
        Just(("36", 14)),
        Just(("62", 19)),
        Just(("1946", 16)),
    ];
    (brand, proptest::collection::vec(0u8..10, 19)).prop_map(|((prefix, length), random)| {
        let mut digits: Vec<u8> = prefix.bytes().map(|byte| byte - b'0').collect();
        digits.extend(random.iter().take(length - 1 - prefix.len()));
        digits.push(check_digit(&digits));
        digits
    })
}

proptest! {
    #[test]
    fn cards_are_found_however_they_are_separated(
        digits in card(),
        separators in proptest::collection::vec(prop_oneof![Just(""), Just(" "), Just("-")], 19),
        before in "[a-z]{0,8}[ ,.:;(]",
        after in "[ ,.:;)][a-z]{0,8}",
    ) {
        let mut written = String::new();
        for (index, digit) in digits.iter().enumerate() {
            if index > 0 {
                written.push_str(separators[index]);
            }
            written.push(char::from(b'0' + digit));
        }
        let text = format!("{before}{written}{after}");
        prop_assert_eq!(redact(&text), (format!("{before}{REDACTED}{after}").into(), 1));
    }

    #[test]
    fn redacted_texts_have_no_card_and_never_grow(text in "([0-9０-９]{1,8}[ -]?|[a-f+_.é]|4111 1111 1111 1111)*") {
        let (redacted, count) = redact(&text);
        prop_assert!(!contains(&redacted), "{redacted}");
        prop_assert!(redacted.len() <= text.len());
        prop_assert_eq!(count == 0, redacted == text);
    }

    #[test]
    fn ranges_are_ordered_and_on_character_boundaries(text in "\\PC*|[0-9 -]*") {
        let mut end = 0;
        for range in find(&text) {
            prop_assert!(end <= range.start && range.start < range.end);
            prop_assert!(text.get(range.clone()).is_some());
            end = range.end;
        }
    }

    #[test]
    fn uuids_are_left(bytes in any::<u128>()) {
        let uuid = uuid::Uuid::from_u128(bytes).to_string();
        prop_assert!(!contains(&uuid));
        let sentence = format!("lihat {uuid} ya");
        prop_assert!(!contains(&sentence));
        let named = format!("order_{uuid}");
        prop_assert!(!contains(&named));
    }

    #[test]
    fn uuids_of_versions_4_and_7_are_left(random in any::<[u8; 16]>(), millis in 0u64..1 << 48) {
        let tail = random[..10].try_into().expect("ten bytes");
        let four = uuid::Builder::from_random_bytes(random).into_uuid();
        let seven = uuid::Builder::from_unix_timestamp_millis(millis, &tail).into_uuid();
        for uuid in [four, seven] {
            prop_assert!(!contains(&uuid.to_string()), "{uuid}");
            prop_assert!(!contains(&uuid.to_string().to_uppercase()), "{uuid}");
            let simple = uuid.simple().to_string();
            let digits = simple.bytes().all(|byte| byte.is_ascii_digit());
            prop_assert!(digits || !contains(&simple), "{simple}");
        }
    }

    #[test]
    fn letters_and_underscores_touch_cards(
        digits in card(),
        before in "[a-zA-Z_]{0,8}",
        after in "[a-zA-Z_]{0,8}",
    ) {
        let number: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let text = format!("{before}{number}{after}");
        // As long as a hash and all of it hexadecimal: left, and never drawn long.
        prop_assume!(!is_hash(text.as_bytes()));
        prop_assert_eq!(redact(&text), (format!("{before}{REDACTED}{after}").into(), 1));
    }
}
