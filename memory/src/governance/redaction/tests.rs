//! Tests of redaction: what must be found, what looks like it and must stay, and that no text is slow or panics.

use super::*;

fn kinds(text: &str) -> Vec<(SensitiveKind, &str)> {
    let found = Redactor::default().find(text);
    found.into_iter().map(|Found { kind, range }| (kind, &text[range])).collect()
}

fn assert_found(kind: SensitiveKind, cases: &[(&str, &str)]) {
    for &(text, expected) in cases {
        assert_eq!(kinds(text), vec![(kind, expected)], "in {text:?}");
    }
}

fn assert_clean(texts: &[&str]) {
    for text in texts {
        assert!(kinds(text).is_empty(), "{text:?}: {:?}", kinds(text));
    }
}

#[test]
fn cards_are_found_in_every_usual_form() {
    assert_found(
        SensitiveKind::Card,
        &[
            ("My card is 4111111111111111.", "4111111111111111"),
            ("4111 1111 1111 1111", "4111 1111 1111 1111"),
            ("card:4111-1111-1111-1111,", "4111-1111-1111-1111"),
            ("Visa 4222222222222 (old)", "4222222222222"),
            ("Amex 3782 822463 10005", "3782 822463 10005"),
            ("5555.5555.5555.4444", "5555.5555.5555.4444"),
            ("order 12 4111 1111 1111 1111 2027", "4111 1111 1111 1111"),
        ],
    );
    assert_found(
        SensitiveKind::Card,
        &[
            ("卡号：4111 1111 1111 1111。", "4111 1111 1111 1111"),
            ("４１１１ １１１１ １１１１ １１１１", "４１１１ １１１１ １１１１ １１１１"),
            ("4111\u{a0}1111\u{202f}1111\u{2011}1111", "4111\u{a0}1111\u{202f}1111\u{2011}1111"),
            ("2223003122003222", "2223003122003222"),
            ("6011111111111117", "6011111111111117"),
            ("3530111333300000", "3530111333300000"),
            ("30569309025904", "30569309025904"),
            ("card_4111111111111111", "4111111111111111"),
        ],
    );
}

#[test]
fn numbers_that_are_no_cards_stay() {
    assert_clean(&[
        "4111111111111112",
        "Invoice 2024-000123-4567890-11",
        "ISBN 978-0-306-40615-7 and 9783161484100",
        "ISBN 978-0-306-40615-8",
        "IMEI 490154203237518",
        "timestamp 1714992645123 and 20240506123045",
        "2024-05-06 12:30:45.123456",
        "version 4.1.1111111.111111",
        "id 411111111111111111111111111111",
        "uuid 550e8400-e29b-41d4-a716-446655440000",
        "hash a4111111111111111b",
        "0000 0000 0000 0000",
        "The code is 4417.",
        "pi 3.14159265358979323846",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "4111  1111  1111  1111 has two spaces each",
    ]);
}

#[test]
fn ibans_are_found_by_country_length_and_checksum() {
    assert_found(
        SensitiveKind::Iban,
        &[
            ("DE89370400440532013000", "DE89370400440532013000"),
            ("IBAN: DE89 3704 0044 0532 0130 00 is mine", "DE89 3704 0044 0532 0130 00"),
            ("de89 3704 0044 0532 0130 00.", "de89 3704 0044 0532 0130 00"),
            ("GB29 NWBK 6016 1331 9268 19", "GB29 NWBK 6016 1331 9268 19"),
            ("NO93 8601 1117 947", "NO93 8601 1117 947"),
            ("MT84MALT011000012345MTLCAST001S", "MT84MALT011000012345MTLCAST001S"),
            ("Überweisung an FR14-2004-1010-0505-0001-3M02-606 bitte", "FR14-2004-1010-0505-0001-3M02-606"),
        ],
    );
    assert_clean(&[
        "DE88370400440532013000",
        "DE8937040044053201300",
        "DE893704004405320130001",
        "XX89370400440532013000",
        "part AB12 CD34",
        "xDE89370400440532013000",
    ]);
}

#[test]
fn addresses_are_found_and_packages_are_not() {
    assert_found(
        SensitiveKind::Email,
        &[
            ("write to ann@example.com.", "ann@example.com"),
            ("<ann.b+tag@mail.example.co.uk>", "ann.b+tag@mail.example.co.uk"),
            ("jürgen@müller.example", "jürgen@müller.example"),
            ("mail:o'neil@example.org;", "o'neil@example.org"),
            ("'ann@example.com'", "ann@example.com'".trim_end_matches('\'')),
            ("用户@例子.公司", "用户@例子.公司"),
        ],
    );
    assert_clean(&["react@18.2.0", "me@localhost", "@ann", "a @ b.com", "user@10.0.0.1", "@@@@.com", "price @ 3.50"]);
}

#[test]
fn phone_numbers_are_found_and_codes_and_dates_are_not() {
    assert_found(
        SensitiveKind::Phone,
        &[
            ("call +49 171 1234567 today", "+49 171 1234567"),
            ("+1 (555) 123-4567, code 4417", "+1 (555) 123-4567"),
            ("+1 555 123 4567 4417", "+1 555 123 4567"),
            ("+491711234567", "+491711234567"),
            ("+44 (0)20 7946 0958", "+44 (0)20 7946 0958"),
            ("0049 171 1234567", "0049 171 1234567"),
            ("00491711234567", "00491711234567"),
            ("(555) 234-5678", "(555) 234-5678"),
            ("555-234-5678", "555-234-5678"),
            ("Tel.: 030 1234567", "030 1234567"),
            ("her phone number is 0171/1234567", "0171/1234567"),
            ("Handy 0171 1234567.", "0171 1234567"),
        ],
    );
    assert_clean(&[
        "The door code is 4417.",
        "phone 4417",
        "on 2024-05-06 at 12:30:45+02:00",
        "06.05.2024 and 05/06/2024",
        "version 1.2.3+20240506123",
        "2024-05-06T12:30:45.123456789Z",
        "invoice 123-456-7890",
        "invoice 00123456789",
        "score +12500000",
        "192.168.100.200",
        "between 2020 and 2024, 1000 2000 3000",
        "x = a+4917112345678",
    ]);
}

#[test]
fn secrets_are_found_by_prefix_and_by_announcement() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let own = format!("mk-{}", "0123456789abcdef".repeat(4));
    let github = format!("ghp_{}", "aB3".repeat(12));
    let cases = [
        ("use sk-proj-abcdefGHIJKL0123456789 now", "sk-proj-abcdefGHIJKL0123456789"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
        ("sk_live_4eC39HqLyjWDarjtT1zdp7dc", "sk_live_4eC39HqLyjWDarjtT1zdp7dc"),
        ("xoxb-123456789012-abcdef", "xoxb-123456789012-abcdef"),
        ("my password is hunter2.", "hunter2"),
        ("Passwort: Geheim!23", "Geheim!23"),
        ("PASSWORD=correct-Horse7", "correct-Horse7"),
        ("{\"api_key\": \"a8f5f167f44f4964e6c998dee827110c\"}", "a8f5f167f44f4964e6c998dee827110c"),
        ("Authorization: Bearer 9f8e7d6c5b4a39281706f5e4d3c2b1a0", "9f8e7d6c5b4a39281706f5e4d3c2b1a0"),
        ("das Passwort ist Sömmer-2024", "Sömmer-2024"),
    ];
    assert_found(SensitiveKind::Key, &cases);
    for secret in [jwt, &own, &github] {
        assert_eq!(kinds(&format!("see {secret} here")), vec![(SensitiveKind::Key, secret)]);
    }
    let block = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----";
    assert_eq!(kinds(&format!("x\n{block}\ny")), vec![(SensitiveKind::Key, block)]);
    let torn = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n";
    assert_eq!(kinds(torn), vec![(SensitiveKind::Key, torn)]);
    assert_clean(&[
        "the password is required",
        "password reset instructions",
        "the password is 4417",
        "token-based authentication",
        "a token is about 4 characters",
        "max_tokens: 512",
        "the bearer of this letter",
        "sk-learn and mk-2",
        "password: https://example.com/reset1",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "tokens per second: 123456",
    ]);
}

#[test]
fn ip_addresses_are_found_only_when_asked_for() {
    assert_clean(&["host 192.168.1.20", "2001:db8::1"]);
    let redactor = Redactor::new(&RedactionConfig { kinds: vec![SensitiveKind::Ip] });
    let found =
        |text: &str| redactor.find(text).into_iter().map(|found| text[found.range].to_owned()).collect::<Vec<_>>();
    assert_eq!(found("from 192.168.1.20."), ["192.168.1.20"]);
    assert_eq!(found("2001:db8::1, ::ffff"), ["2001:db8::1", "::ffff"]);
    for text in ["1.2.3", "300.1.1.1", "1.2.3.4.5", "12:30:45", "v1.2.3.4", "std::fmt::Display", "a::b"] {
        assert!(found(text).is_empty(), "{text}: {:?}", found(text));
    }
}

#[test]
fn findings_are_replaced_and_the_rest_stays_byte_for_byte() {
    let redactor = Redactor::default();
    let text = "Ännchen (ann@example.com, +49 171 1234567) zahlt mit 4111 1111 1111 1111 — Code 4417.";
    let (redacted, found) = redactor.redact(text);
    assert_eq!(redacted, "Ännchen ([redacted:email], [redacted:phone]) zahlt mit [redacted:card] — Code 4417.");
    assert_eq!(found.len(), 3);
    assert_eq!(redactor.redact(&redacted), (redacted.clone(), Vec::new()), "twice is once");
    let (redacted, _) = redactor.redact("api key: sk-abcdefghijklmnop1234");
    assert_eq!(redacted, "api key: [redacted:key]");
    assert_eq!(redactor.redact(&redacted).0, redacted);
}

#[test]
fn what_overlaps_is_one_finding_whatever_the_order_of_the_kinds() {
    let text = "4111111111111111@example.com password=ann@example.com1X";
    let mut kinds = RedactionConfig::default().kinds;
    let expected = Redactor::new(&RedactionConfig { kinds: kinds.clone() }).redact(text);
    assert!(
        !expected.0.contains("4111") && !expected.0.contains("ann") && !expected.0.contains("1X"),
        "{}",
        expected.0
    );
    for _ in 0..kinds.len() {
        kinds.rotate_left(1);
        assert_eq!(Redactor::new(&RedactionConfig { kinds: kinds.clone() }).redact(text), expected);
    }
    for pair in expected.1.windows(2) {
        assert!(pair[0].range.end <= pair[1].range.start);
    }
}

#[test]
fn nothing_is_looked_for_when_no_kind_is_chosen() {
    let redactor = Redactor::new(&RedactionConfig { kinds: Vec::new() });
    assert_eq!(redactor.redact("4111111111111111").0, "4111111111111111");
}

#[test]
fn any_text_is_searched_without_panic_and_in_linear_time() {
    let redactor = Redactor::new(&RedactionConfig { kinds: SensitiveKind::ALL.to_vec() });
    let pieces = [
        "4",
        "1111 ",
        "@",
        "a",
        ".",
        "+",
        "49",
        "é",
        "卡",
        "-----BEGIN PRIVATE KEY-----",
        "DE89",
        ":",
        "\u{200b}",
        "password ",
        "=",
        "eyJ",
        "\u{0}",
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..2_000 {
        let mut text = String::new();
        for _ in 0..40 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push_str(pieces[usize::try_from(state % pieces.len() as u64).expect("small")]);
        }
        let (redacted, found) = redactor.redact(&text);
        assert!(found.iter().all(|found| text.get(found.range.clone()).is_some()), "round {round}: {text:?}");
        assert!(redacted.len() <= text.len() + found.len() * 16, "round {round}");
    }
    // Doubling the text must not come near to quadrupling the time; ten times the linear time leaves room for noise.
    for piece in
        ["a@", "1 ", "+1 ", "DE89", "password ", "a.b@c.d-", "-----BEGIN PRIVATE KEY-----", "eyJaaaaaaaa.", "::"]
    {
        let time = |num_bytes: usize| {
            let text = piece.repeat(num_bytes / piece.len());
            let start = std::time::Instant::now();
            redactor.find(&text);
            start.elapsed()
        };
        let (short, long) = (time(16 << 10), time(256 << 10));
        assert!(long < short * 160 + std::time::Duration::from_millis(50), "{piece:?}: {short:?}, then {long:?}");
    }
}
