use super::*;

#[test]
fn long_strings_are_bounded_from_both_sides() {
    let long = "x".repeat(40);
    assert_eq!(shorten("short", Side::Max).as_deref(), Some("short"));
    assert_eq!(shorten(&long, Side::Min), Some("x".repeat(32)));
    assert_eq!(
        shorten(&long, Side::Max),
        Some(format!("{}y", "x".repeat(31)))
    );
    // The last character that has a successor gives it; those after it go.
    let top = format!("{}b{}", "a".repeat(30), "\u{10ffff}".repeat(9));
    assert_eq!(
        shorten(&top, Side::Max),
        Some(format!("{}c", "a".repeat(30)))
    );
    assert_eq!(shorten(&"\u{10ffff}".repeat(33), Side::Max), None);
    // The successor of the last character before the surrogates lies behind them.
    let edge = "\u{d7ff}".repeat(33);
    let bound = shorten(&edge, Side::Max).unwrap();
    assert!(bound > edge && bound.ends_with('\u{e000}'));
    assert_eq!(shorten(&"é".repeat(32), Side::Max), Some("é".repeat(32)));
}

#[test]
fn decimals_keep_every_digit() {
    for (unscaled, scale, text) in [
        (0, 0, "0"),
        (0, 3, "0.000"),
        (5, 3, "0.005"),
        (-5, 3, "-0.005"),
        (12345, 2, "123.45"),
        (-100, 2, "-1.00"),
        (
            -(10_i128.pow(38) - 1),
            38,
            "-0.99999999999999999999999999999999999999",
        ),
        (
            10_i128.pow(38) - 1,
            0,
            "99999999999999999999999999999999999999",
        ),
    ] {
        assert_eq!(decimal(unscaled, scale), text);
    }
}

#[test]
fn times_readers_cannot_parse_bound_nothing() {
    let at = |micros: i128| Bound::Integer(micros).json(Kind::Timestamp { zoned: true }, Side::Min);
    assert_eq!(at(-1).as_deref(), Some("\"1969-12-31T23:59:59.999999Z\""));
    assert_eq!(at(i64::MAX.into()), None);
    let day = |days: i128| Bound::Integer(days).json(Kind::Date, Side::Max);
    assert_eq!(day(0).as_deref(), Some("\"1970-01-01\""));
    assert_eq!(day(i32::MIN.into()), None);
    assert_eq!(day(i32::MAX.into()), None);
}

#[test]
fn listed_columns_may_be_nested_and_quoted() {
    let parsed = parse_columns("a, b.c ,`x.y`.`q``,`").unwrap();
    assert_eq!(parsed, [vec!["a"], vec!["b", "c"], vec!["x.y", "q`,"]]);
    assert!(parse_columns("`a").is_err());
    let path = ["b", "c"];
    assert!(names(&["B".to_owned()], &path));
    assert!(!names(&["c".to_owned()], &path));
    let lists = |path: &[&str]| {
        let path: Vec<_> = path.iter().map(|s| (*s).to_owned()).collect();
        lists("a,b.c", &path).unwrap()
    };
    assert!(lists(&["b"]) && lists(&["B", "c"]));
    assert!(!lists(&["b", "d"]) && !lists(&["a", "x"]));
}
