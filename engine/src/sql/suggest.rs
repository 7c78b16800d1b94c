//! "Did you mean": the nearest of the valid names.

use strsim::{damerau_levenshtein, jaro_winkler};

/// The candidate that `name` most likely stands for, if any is near. Letter case does not count.
pub(crate) fn nearest<C: AsRef<str>>(
    name: &str,
    candidates: impl IntoIterator<Item = C>,
) -> Option<String> {
    let name = name.to_lowercase();
    // One slip in a short name, one more for every further three letters: beyond that a suggestion
    // is noise.
    let limit = 1 + name.chars().count() / 4;
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let lower = candidate.as_ref().to_lowercase();
            let distance = damerau_levenshtein(&name, &lower);
            let alike = jaro_winkler(&name, &lower);
            let near = distance <= limit && distance < lower.chars().count();
            (near || alike > 0.93).then(|| (distance, -alike, candidate.as_ref().to_owned()))
        })
        .min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)))
        .map(|(_, _, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_slips_and_stays_silent_otherwise() {
        let tables = ["orders", "order_items", "clients", "ds"];
        assert_eq!(nearest("oders", tables).as_deref(), Some("orders"));
        assert_eq!(nearest("ORDERS", tables).as_deref(), Some("orders"));
        assert_eq!(
            nearest("order_itmes", tables).as_deref(),
            Some("order_items")
        );
        assert_eq!(nearest("client", tables).as_deref(), Some("clients"));
        assert_eq!(nearest("d", tables).as_deref(), Some("ds"));
        assert_eq!(nearest("warehouse", tables), None);
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(nearest("", tables), None);
        assert_eq!(nearest("a", Vec::<String>::new()), None);
    }
}
