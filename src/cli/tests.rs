use super::output::Format;
use super::*;

fn parsed(line: &str) -> Result<Cli, clap::Error> {
    let words = line.split('|').map(OsString::from);
    parse(words.collect())
}

fn good(line: &str) -> Cli {
    parsed(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

#[test]
fn the_lines_of_the_tour_parse_with_and_without_json() {
    for line in [
        "simpul",
        "simpul|room|create|lobby|--as|alice",
        "simpul|room|add|lobby|bob|--as|alice",
        "simpul|chat|lobby|--as|alice",
        "simpul|chat|lobby|--as|bob|--from|earliest|--count|2",
        "simpul|chat|lobby|--as|bob|--from|cursor|3|--follow",
        "simpul|pay|--as|alice|--to|toko|--amount|IDR 50000|--method|sandbox_ok",
        "simpul|history|--as|alice",
        "simpul|history|--as|toko|--follow",
        "simpul|balance|--as|toko",
        "simpul|token|--as|alice|--ttl|1h",
        "simpul|policy|list",
        "simpul|--as|alice|whoami",
        "simpul|payment|list|--status|succeeded",
        "simpul|serve|--listen-public|127.0.0.1:0|--set|a.b=c",
        "simpul|health|--watch",
        "simpul|context|set|prod|--server|a:1",
    ] {
        assert_eq!(good(line).global.output, None);
        assert_eq!(good(&format!("{line}|--output|json")).global.output, Some(Format::Json));
    }
}

#[test]
fn without_a_command_it_serves() {
    assert!(good("simpul").command.is_none());
    let cli = good("simpul|--data-dir|d");
    assert!(cli.command.is_none());
    assert_eq!(cli.global.data_dir, Some("d".into()));
}

#[test]
fn global_flags_stand_before_or_after_the_command() {
    for line in
        ["simpul|--as|alice|--role|support|whoami", "simpul|whoami|--as|alice|--role|support"]
    {
        let cli = good(line);
        assert_eq!(cli.global.as_principal.as_deref(), Some("alice"));
        assert_eq!(cli.global.roles, [crate::principal::Role::Support]);
    }
}

#[test]
fn a_payments_key_is_not_the_certificates() {
    let cli = good("simpul|pay|--to|t|--amount|IDR 1|--method|m|--key|k1|--cert-key|file");
    assert_eq!(cli.global.cert_key, Some("file".into()));
    let shown = format!("{:?}", cli.command);
    assert!(shown.contains(r#"idempotency_key: Some("k1")"#), "{shown}");
    let refund = good("simpul|payment|refund|p|--key|k2");
    assert_eq!(refund.global.cert_key, None);
    assert!(format!("{:?}", refund.command).contains(r#"idempotency_key: Some("k2")"#));
    let whoami = good("simpul|whoami|--cert|c|--key|file");
    assert_eq!(whoami.global.cert_key, Some("file".into()));
}

#[test]
fn wrong_lines_are_usage_and_name_what_is_wrong() {
    for (line, text) in [
        ("simpul|dance", "unrecognized subcommand 'dance'"),
        ("simpul|pay|--to|t|--amount|JPY 1.5|--method|m", "invalid value 'JPY 1.5'"),
        ("simpul|pay|--to|t", "--amount"),
        ("simpul|chat|lobby|--count|0", "0 is not in"),
        ("simpul|whoami|--role|king", "not a role"),
        ("simpul|whoami|--as|a|--token|t", "cannot be used with"),
        ("simpul|token|--ttl|soon", "invalid value 'soon'"),
        ("simpul|history|--kind|gift", "must be funding"),
    ] {
        let error = parsed(line).expect_err(line);
        assert!(error.to_string().contains(text), "{line}: {error}");
        assert_eq!(run(line.split('|').map(OsString::from).collect()), Exit::Usage);
    }
}

#[test]
fn help_and_version_are_no_failure() {
    for line in ["simpul|--help", "simpul|pay|--help", "simpul|--version"] {
        let error = parsed(line).expect_err("shown instead");
        assert!(!error.use_stderr(), "{line}");
    }
}

#[test]
fn json_is_asked_for_even_when_the_rest_is_wrong() {
    let wants = |line: &str| wants_json(&line.split('|').map(OsString::from).collect::<Vec<_>>());
    assert!(wants("simpul|dance|--output|json"));
    assert!(wants("simpul|--output=json|dance"));
    assert!(!wants("simpul|dance|--output|text"));
}
