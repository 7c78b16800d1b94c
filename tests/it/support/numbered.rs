//! Rules with numbers, and the tests that bear them.

use std::path::Path;

/// The numbers of a table in the docs of module `module`, whose text is `docs`: each row names a rule, a file, and a test
/// in it that begins with the rule's number and is there.
pub(crate) fn tests(docs: &str, module: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("it")
        .join(module);
    let mut numbers = Vec::new();
    for line in docs.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["//!", rule, file, test, ""] = cells.as_slice() else {
            continue;
        };
        let Some((number, _)) = test.split_once('_').filter(|_| *test != "test") else {
            continue;
        };
        let number = number.to_uppercase();
        assert!(rule.starts_with(&format!("{number} ")), "{rule}: {test}");
        let source = std::fs::read_to_string(root.join(file)).unwrap();
        assert!(
            source.contains(&format!("async fn {test}(")),
            "{file} has no test {test}"
        );
        numbers.push(number);
    }
    numbers
}
