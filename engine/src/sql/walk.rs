//! Walks every query and expression of a statement, wherever it is kept.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Visit, VisitMut, Visitor, VisitorMut};

use super::statement::{
    AlterAction, ColumnChange, CopySource, Correction, FunctionBody, InsertSource, MergeAction,
    Statement,
};
use super::versions::At;

// One list for both kinds of walk. It names every statement, so that a new one must be placed here.
macro_rules! walk {
    ($walk:ident, $visit:ident, $visitor:ident $(, $mutable:tt)?) => {
        pub(super) fn $walk<V: $visitor>(
            statement: &$($mutable)? Statement,
            visitor: &mut V,
        ) -> ControlFlow<V::Break> {
            match statement {
                Statement::Query(query) | Statement::DescribeQuery(query) => {
                    $visit::visit(query, visitor)
                }
                Statement::Explain(explain) => $walk(&$($mutable)? explain.statement, visitor),
                Statement::ExplainQuality(write) => $walk(write, visitor),
                Statement::Prepare(prepare) => $walk(&$($mutable)? prepare.statement, visitor),
                Statement::Insert(insert) => {
                    $visit::visit(&$($mutable)? insert.replace, visitor)?;
                    match &$($mutable)? insert.source {
                        InsertSource::Query(query) => $visit::visit(query, visitor),
                        InsertSource::DefaultValues => ControlFlow::Continue(()),
                    }
                }
                Statement::Update(update) => {
                    for assignment in &$($mutable)? update.assignments {
                        $visit::visit(&$($mutable)? assignment.value, visitor)?;
                    }
                    $visit::visit(&$($mutable)? update.from, visitor)?;
                    $visit::visit(&$($mutable)? update.predicate, visitor)
                }
                Statement::Delete(delete) => {
                    $visit::visit(&$($mutable)? delete.using, visitor)?;
                    $visit::visit(&$($mutable)? delete.predicate, visitor)
                }
                Statement::Merge(merge) => {
                    $visit::visit(&$($mutable)? merge.source, visitor)?;
                    $visit::visit(&$($mutable)? merge.on, visitor)?;
                    for clause in &$($mutable)? merge.clauses {
                        $visit::visit(&$($mutable)? clause.condition, visitor)?;
                        match &$($mutable)? clause.action {
                            MergeAction::Update(assignments) => {
                                for assignment in assignments {
                                    $visit::visit(&$($mutable)? assignment.value, visitor)?;
                                }
                            }
                            MergeAction::Insert { values, .. } => $visit::visit(values, visitor)?,
                            MergeAction::UpdateAll
                            | MergeAction::Delete
                            | MergeAction::InsertAll => {}
                        }
                    }
                    ControlFlow::Continue(())
                }
                Statement::CreateTable(table) => {
                    if let Some(journal) = &$($mutable)? table.journal {
                        $visit::visit(&$($mutable)? journal.delete_when, visitor)?;
                    }
                    for column in &$($mutable)? table.columns {
                        $visit::visit(&$($mutable)? column.default, visitor)?;
                    }
                    for check in &$($mutable)? table.checks {
                        $visit::visit(&$($mutable)? check.expr, visitor)?;
                    }
                    $visit::visit(&$($mutable)? table.query, visitor)
                }
                Statement::CreateView(view) => $visit::visit(&$($mutable)? view.query, visitor),
                Statement::CreateFunction(function) => match &$($mutable)? function.body {
                    FunctionBody::Value(expr) => $visit::visit(expr, visitor),
                    FunctionBody::Rows(query) => $visit::visit(query, visitor),
                },
                Statement::AlterTable { action, .. } => match action {
                    AlterAction::AddColumn(add) => {
                        $visit::visit(&$($mutable)? add.column.default, visitor)
                    }
                    AlterAction::AlterColumn {
                        change: ColumnChange::Default(default),
                        ..
                    } => $visit::visit(default, visitor),
                    AlterAction::AddCheck { expr, .. } => $visit::visit(expr, visitor),
                    // The condition of a rule is text by now: it was walked when it was read.
                    AlterAction::AddRule { .. }
                    | AlterAction::SwitchConstraint { .. }
                    | AlterAction::SetProperties(_)
                    | AlterAction::UnsetProperties { .. }
                    | AlterAction::RenameTo(_)
                    | AlterAction::DropColumn { .. }
                    | AlterAction::RenameColumn { .. }
                    | AlterAction::AlterColumn { .. }
                    | AlterAction::DropConstraint { .. } => ControlFlow::Continue(()),
                },
                Statement::CopyTo(copy) => match &$($mutable)? copy.source {
                    CopySource::Query(query) => $visit::visit(query, visitor),
                    CopySource::Table(_) => ControlFlow::Continue(()),
                },
                Statement::Optimize(optimize) => {
                    $visit::visit(&$($mutable)? optimize.predicate, visitor)
                }
                Statement::Restore(restore) => match &$($mutable)? restore.to {
                    At::Timestamp(instant) => $visit::visit(instant, visitor),
                    At::Version(_) => ControlFlow::Continue(()),
                },
                Statement::CheckTable(check) => match &$($mutable)? check.at {
                    Some(At::Timestamp(instant)) => $visit::visit(instant, visitor),
                    Some(At::Version(_)) | None => ControlFlow::Continue(()),
                },
                Statement::CheckJournal { at, .. } => match at {
                    Some(At::Timestamp(instant)) => $visit::visit(instant, visitor),
                    Some(At::Version(_)) | None => ControlFlow::Continue(()),
                },
                Statement::CorrectJournal(correct) => {
                    if let Correction::Set(assignments) = &$($mutable)? correct.change {
                        for assignment in assignments {
                            $visit::visit(&$($mutable)? assignment.value, visitor)?;
                        }
                    }
                    $visit::visit(&$($mutable)? correct.predicate, visitor)
                }
                Statement::Replay(replay) => {
                    for assignment in &$($mutable)? replay.assignments {
                        $visit::visit(&$($mutable)? assignment.value, visitor)?;
                    }
                    $visit::visit(&$($mutable)? replay.predicate, visitor)
                }
                Statement::Execute { arguments, .. } => $visit::visit(arguments, visitor),
                Statement::Truncate { .. }
                | Statement::CreateExternalTable(_)
                | Statement::CreateSchema { .. }
                | Statement::Drop(_)
                | Statement::CopyInto(_)
                | Statement::Vacuum(_)
                | Statement::Analyze { .. }
                | Statement::SuggestConstraints { .. }
                // The keys of a policy are text by now: they were walked when they were read.
                | Statement::CreatePolicy(_)
                | Statement::DropPolicy { .. }
                | Statement::SwitchPolicy { .. }
                | Statement::Cleanse(_)
                | Statement::VerifyErasure { .. }
                | Statement::Show(_)
                | Statement::Describe(_)
                | Statement::DescribeHistory(_)
                | Statement::Set { .. }
                | Statement::Reset { .. }
                | Statement::Use { .. }
                | Statement::Deallocate { .. }
                | Statement::Transaction(_) => ControlFlow::Continue(()),
            }
        }
    };
}

walk!(walk, Visit, Visitor);
walk!(walk_mut, VisitMut, VisitorMut, mut);
