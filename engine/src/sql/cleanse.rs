//! `CLEANSE TABLE`, `VERIFY ERASURE`, and the policies that both are about.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};

use super::create::Once;
use super::policy;
use super::reader::Reader;
use super::statement::{Cleanse, CreatePolicy, Show, Statement, fold};
use super::target::{named_table, refuse_clauses, whole_table};
use crate::cleanse::policy::Policy;
use crate::error::{Error, Result};

/// `CLEANSE POLICY name ON t definition`, after CREATE [OR REPLACE]
pub(super) fn create(reader: &mut Reader<'_>, or_replace: bool) -> Result<Statement> {
    expect_policy(reader)?;
    if reader.sees(&["IF", "NOT", "EXISTS"]) {
        return Err(reader
            .unsupported("CREATE CLEANSE POLICY IF NOT EXISTS")
            .with_hint(
                "CREATE OR REPLACE CLEANSE POLICY makes the policy what it says, there or not",
            ));
    }
    let (name, table) = named(reader)?;
    let (scope, action) = policy::definition(reader)?;
    Ok(Statement::CreatePolicy(CreatePolicy {
        policy: Policy::new(fold(&name), scope, action),
        table,
        or_replace,
    }))
}

/// `CLEANSE POLICY [IF EXISTS] name ON t`, after DROP
pub(super) fn drop(reader: &mut Reader<'_>) -> Result<Statement> {
    expect_policy(reader)?;
    let if_exists = reader.take(&["IF", "EXISTS"]);
    let (name, table) = named(reader)?;
    Ok(Statement::DropPolicy {
        name,
        table,
        if_exists,
    })
}

/// `CLEANSE POLICY name ON t {ENABLE | DISABLE}`, after ALTER
pub(super) fn alter(reader: &mut Reader<'_>) -> Result<Statement> {
    expect_policy(reader)?;
    let (name, table) = named(reader)?;
    let enabled = reader.take(&["ENABLE"]);
    if !enabled && !reader.take(&["DISABLE"]) {
        return Err(reader
            .expected("ENABLE or DISABLE")
            .with_hint("CREATE OR REPLACE CLEANSE POLICY changes what a policy does"));
    }
    Ok(Statement::SwitchPolicy {
        name,
        table,
        enabled,
    })
}

/// `CLEANSE POLICIES [ON t]`, after SHOW
pub(super) fn show(reader: &mut Reader<'_>) -> Result<Show> {
    reader.expect(&["CLEANSE"])?;
    reader.expect(&["POLICIES"])?;
    if ["IN", "FROM", "FOR", "OF"]
        .iter()
        .any(|word| reader.sees(&[word]))
    {
        return Err(reader.expected("ON and a table"));
    }
    let table = match reader.take(&["ON"]) {
        true => Some(named_table(reader)?),
        false => None,
    };
    Ok(Show::Policies { table })
}

fn expect_policy(reader: &mut Reader<'_>) -> Result<()> {
    reader.expect(&["CLEANSE"])?;
    reader.expect(&["POLICY"])
}

/// `name ON t`
fn named(reader: &mut Reader<'_>) -> Result<(Ident, ObjectName)> {
    if reader.sees(&["ON"]) && !reader.sees(&["ON", "ON"]) {
        let error = Error::invalid("the policy has no name")
            .with_hint("a policy is named with its table: CLEANSE POLICY name ON t");
        return Err(error.with_position(reader.position()));
    }
    let name = reader.identifier()?;
    if !reader.take(&["ON"]) {
        return Err(reader.expected("ON and a table"));
    }
    let table = named_table(reader)?;
    refuse_clauses(reader)?;
    Ok((name, table))
}

/// `CLEANSE TABLE t [POLICY name] [ERASE] [DRY RUN]`, the clauses in any order
pub(super) fn cleanse(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["CLEANSE"])?;
    if !reader.take(&["TABLE"]) {
        return Err(reader
            .expected("TABLE")
            .with_hint("CLEANSE TABLE t applies the policies of t to the rows that it holds"));
    }
    let table = named_table(reader)?;
    refuse_clauses(reader)?;
    let mut cleanse = Cleanse {
        table,
        policy: None,
        erase: false,
        dry_run: false,
    };
    let mut seen = Once::default();
    loop {
        if reader.sees(&["POLICY"]) {
            seen.first("POLICY", reader)?;
            reader.take(&["POLICY"]);
            cleanse.policy = Some(reader.identifier()?);
        } else if reader.sees(&["ERASE"]) {
            seen.first("ERASE", reader)?;
            cleanse.erase = reader.take(&["ERASE"]);
        } else if reader.sees(&["DRY", "RUN"]) {
            seen.first("DRY RUN", reader)?;
            cleanse.dry_run = reader.take(&["DRY", "RUN"]);
        } else {
            break;
        }
    }
    if reader.sees(&["WHERE"]) {
        return Err(reader
            .unsupported("CLEANSE TABLE .. WHERE")
            .with_hint("the keys of a policy say which rows: CLEANSE TABLE t POLICY name"));
    }
    Ok(Statement::Cleanse(cleanse))
}

/// `VERIFY ERASURE OF [TABLE] t [POLICY name]`
pub(super) fn verify(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["VERIFY"])?;
    if !reader.take(&["ERASURE"]) {
        return Err(reader.expected("ERASURE").with_hint(
            "VERIFY ERASURE OF t tells what is left of the values that policies took away",
        ));
    }
    reader.expect(&["OF"])?;
    let table = whole_table(reader)?;
    let policy = match reader.take(&["POLICY"]) {
        true => Some(reader.identifier()?),
        false => None,
    };
    Ok(Statement::VerifyErasure { table, policy })
}
