//! What the server says about itself and its SQL.
//!
//! Every id of the ranges 0-11, 100-101 and 500-576 is present and of the type its specification names: older JDBC
//! drivers fail on a missing value, all of them on one of another type. Only what is true is claimed: transactions
//! above all, which JDBC users would believe in.

use std::collections::BTreeMap;

use arrow_flight::error::FlightError;
use arrow_flight::sql::SqlInfo::{self, *};
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity, SqlSupportedGroupBy,
    SqlSupportedResultSetConcurrency, SqlSupportedResultSetType, SqlSupportedSubqueries,
    SqlSupportedTransaction, SqlSupportedUnions, SqlTransactionIsolationLevel, SupportedSqlGrammar,
};

/// All answers, fixed for the life of the program.
pub(crate) fn build() -> Result<SqlInfoData, FlightError> {
    let mut info = SqlInfoDataBuilder::new();
    for (id, text) in TEXTS {
        info.append(*id, *text);
    }
    for (id, answer) in FLAGS {
        info.append(*id, *answer);
    }
    for (id, value) in numbers() {
        info.append(id, value);
    }
    for (id, words) in LISTS {
        info.append(*id, *words);
    }
    // No limit, or none that is known before a statement runs: zero by the specification.
    for id in LIMITS {
        info.append(*id, 0_i64);
    }
    // `{fn CONVERT(..)}`, which this describes, is not understood.
    info.append(SqlSupportsConvert, BTreeMap::<i32, Vec<i32>>::new());
    info.build()
}

const TEXTS: &[(SqlInfo, &str)] = &[
    (FlightSqlServerName, "Selvedge"),
    (FlightSqlServerVersion, env!("CARGO_PKG_VERSION")),
    (FlightSqlServerArrowVersion, arrow::ARROW_VERSION),
    (FlightSqlServerSubstraitMinVersion, ""),
    (FlightSqlServerSubstraitMaxVersion, ""),
    (SqlIdentifierQuoteChar, "\""),
    (SqlSearchStringEscape, "\\"),
    (SqlExtraNameCharacters, ""),
    (SqlSchemaTerm, "schema"),
    (SqlProcedureTerm, "procedure"),
    (SqlCatalogTerm, "catalog"),
];

const FLAGS: &[(SqlInfo, bool)] = &[
    (FlightSqlServerReadOnly, false),
    (FlightSqlServerSql, true),
    (FlightSqlServerSubstrait, false),
    (FlightSqlServerCancel, true),
    (FlightSqlServerBulkIngestion, true),
    (FlightSqlServerIngestTransactionsSupported, false),
    (SqlDdlCatalog, false),
    (SqlDdlSchema, true),
    (SqlDdlTable, true),
    (SqlAllTablesAreSelectable, true),
    (SqlSupportsColumnAliasing, true),
    (SqlNullPlusNullIsNull, true),
    (SqlSupportsTableCorrelationNames, true),
    (SqlSupportsDifferentTableCorrelationNames, false),
    (SqlSupportsExpressionsInOrderBy, true),
    (SqlSupportsOrderByUnrelated, true),
    (SqlSupportsLikeEscapeClause, true),
    (SqlSupportsNonNullableColumns, true),
    (SqlSupportsIntegrityEnhancementFacility, false),
    (SqlCatalogAtStart, true),
    (SqlSelectForUpdateSupported, false),
    (SqlStoredProceduresSupported, false),
    (SqlCorrelatedSubqueriesSupported, true),
    (SqlMaxRowSizeIncludesBlobs, true),
    (SqlTransactionsSupported, false),
    (SqlDataDefinitionCausesTransactionCommit, false),
    (SqlDataDefinitionsInTransactionsIgnored, false),
    (SqlBatchUpdatesSupported, true),
    (SqlSavepointsSupported, false),
    (SqlNamedParametersSupported, false),
    (SqlLocatorsUpdateCopy, false),
    (SqlStoredFunctionsUsingCallSyntaxSupported, false),
];

/// Ordinals and sets of them as bits.
fn numbers() -> [(SqlInfo, i32); 22] {
    let bits = |ordinals: &[i32]| ordinals.iter().fold(0, |set, ordinal| set | (1 << ordinal));
    let read_only =
        bits(&[SqlSupportedResultSetConcurrency::SqlResultSetConcurrencyReadOnly as i32]);
    [
        (
            FlightSqlServerTransaction,
            SqlSupportedTransaction::None as i32,
        ),
        (FlightSqlServerStatementTimeout, 0),
        (FlightSqlServerTransactionTimeout, 0),
        (
            SqlIdentifierCase,
            SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32,
        ),
        // Quoted names are kept and compared as they are, for which there is no ordinal.
        (
            SqlQuotedIdentifierCase,
            SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32,
        ),
        (SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32),
        (
            SqlSupportedGroupBy,
            bits(&[
                SqlSupportedGroupBy::SqlGroupByUnrelated as i32,
                SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32,
            ]),
        ),
        (
            SqlSupportedGrammar,
            bits(&[
                SupportedSqlGrammar::SqlMinimumGrammar as i32,
                SupportedSqlGrammar::SqlCoreGrammar as i32,
            ]),
        ),
        // Entry level.
        (SqlAnsi92SupportedLevel, bits(&[0])),
        (
            SqlOuterJoinsSupportLevel,
            SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32,
        ),
        // Procedures, indices and privileges, which these ask about, do not exist.
        (SqlSchemasSupportedActions, 0),
        (SqlCatalogsSupportedActions, 0),
        (SqlSupportedPositionedCommands, 0),
        (
            SqlSupportedSubqueries,
            bits(&[
                SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
                SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
                SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
            ]),
        ),
        (
            SqlSupportedUnions,
            bits(&[
                SqlSupportedUnions::SqlUnion as i32,
                SqlSupportedUnions::SqlUnionAll as i32,
            ]),
        ),
        (
            SqlDefaultTransactionIsolation,
            SqlTransactionIsolationLevel::SqlTransactionNone as i32,
        ),
        (
            SqlSupportedTransactionsIsolationLevels,
            bits(&[SqlTransactionIsolationLevel::SqlTransactionNone as i32]),
        ),
        (
            SqlSupportedResultSetTypes,
            bits(&[SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32]),
        ),
        (SqlSupportedConcurrenciesForResultSetUnspecified, 0),
        (SqlSupportedConcurrenciesForResultSetForwardOnly, read_only),
        (SqlSupportedConcurrenciesForResultSetScrollSensitive, 0),
        (SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0),
    ]
}

/// The functions are those JDBC escapes can name and the engine has under the same name; the keywords those of ours
/// that SQL:2003 does not know.
const LISTS: &[(SqlInfo, &[&str])] = &[
    (
        SqlKeywords,
        &[
            "COPY",
            "DESCRIBE",
            "EXPLAIN",
            "ILIKE",
            "LIMIT",
            "OVERWRITE",
            "QUALIFY",
            "SHOW",
            "UNNEST",
        ],
    ),
    (
        SqlNumericFunctions,
        &[
            "abs",
            "acos",
            "asin",
            "atan",
            "atan2",
            "cbrt",
            "ceil",
            "cos",
            "cot",
            "degrees",
            "exp",
            "factorial",
            "floor",
            "gcd",
            "lcm",
            "ln",
            "log",
            "log10",
            "log2",
            "pi",
            "power",
            "radians",
            "random",
            "round",
            "signum",
            "sin",
            "sqrt",
            "tan",
            "trunc",
        ],
    ),
    (
        SqlStringFunctions,
        &[
            "ascii",
            "btrim",
            "chr",
            "concat",
            "concat_ws",
            "ends_with",
            "initcap",
            "left",
            "length",
            "lower",
            "lpad",
            "ltrim",
            "octet_length",
            "repeat",
            "replace",
            "reverse",
            "right",
            "rpad",
            "rtrim",
            "split_part",
            "starts_with",
            "strpos",
            "substr",
            "translate",
            "trim",
            "upper",
        ],
    ),
    (
        SqlSystemFunctions,
        &["coalesce", "nullif", "nvl", "version"],
    ),
    (
        SqlDatetimeFunctions,
        &[
            "current_date",
            "current_time",
            "date_bin",
            "date_part",
            "date_trunc",
            "from_unixtime",
            "make_date",
            "now",
            "to_char",
            "to_date",
            "to_timestamp",
            "to_unixtime",
        ],
    ),
];

const LIMITS: &[SqlInfo] = &[
    SqlMaxBinaryLiteralLength,
    SqlMaxCharLiteralLength,
    SqlMaxColumnNameLength,
    SqlMaxColumnsInGroupBy,
    SqlMaxColumnsInIndex,
    SqlMaxColumnsInOrderBy,
    SqlMaxColumnsInSelect,
    SqlMaxColumnsInTable,
    SqlMaxConnections,
    SqlMaxCursorNameLength,
    SqlMaxIndexLength,
    SqlDbSchemaNameLength,
    SqlMaxProcedureNameLength,
    SqlMaxCatalogNameLength,
    SqlMaxRowSize,
    SqlMaxStatementLength,
    SqlMaxStatements,
    SqlMaxTableNameLength,
    SqlMaxTablesInSelect,
    SqlMaxUsernameLength,
];

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::UInt32Type;

    /// Children of the union, in the order of its specification.
    const TEXT: i8 = 0;
    const FLAG: i8 = 1;
    const LONG: i8 = 2;
    const INT: i8 = 3;
    const LIST: i8 = 4;
    const MAP: i8 = 5;

    fn child(id: u32) -> i8 {
        match id {
            0..=2 | 6 | 7 | 504 | 513 | 514 | 529..=531 => TEXT,
            3..=5 | 9..=11 => FLAG,
            8 | 100 | 101 => INT,
            503 | 505 | 507 | 522 | 525 | 526 | 528 | 533..=535 | 538 | 540 => INT,
            562 | 564 | 567..=571 => INT,
            508..=512 => LIST,
            517 => MAP,
            541..=555 | 557..=561 => LONG,
            _ => FLAG,
        }
    }

    #[test]
    fn every_id_is_there_with_the_child_its_specification_names() {
        let batch = build().unwrap().record_batch([]).unwrap();
        let ids = batch.column(0).as_primitive::<UInt32Type>();
        let expected: Vec<u32> = (0..=11).chain(100..=101).chain(500..=576).collect();
        assert_eq!(ids.values().as_ref(), expected);
        let values = batch.column(1).as_union();
        for (row, id) in expected.iter().enumerate() {
            assert_eq!(values.type_id(row), child(*id), "sql info {id}");
        }
    }

    #[test]
    fn no_transactions_are_promised() {
        let batch = build().unwrap().record_batch([8, 563, 573]).unwrap();
        let values = batch.column(1).as_union();
        assert_eq!(
            values
                .value(0)
                .as_primitive::<arrow::datatypes::Int32Type>()
                .value(0),
            0
        );
        assert!(!values.value(1).as_boolean().value(0));
        assert!(!values.value(2).as_boolean().value(0));
        assert_eq!(values.len(), 3);
    }
}
