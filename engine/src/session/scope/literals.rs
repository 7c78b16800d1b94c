//! Literals as SQL reads them, where the planner reads them otherwise.

use datafusion::sql::sqlparser::ast;

/// Makes numbers with an exponent the floats that SQL says they are; the planner reads every literal as a decimal,
/// and makes decimals of floats that stand with such in one column of VALUES.
pub(super) struct Floats;

impl ast::VisitorMut for Floats {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> std::ops::ControlFlow<()> {
        columns(&mut query.body);
        std::ops::ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> std::ops::ControlFlow<()> {
        if let ast::Expr::Value(ast::ValueWithSpan {
            value: ast::Value::Number(digits, _),
            span,
        }) = expr
            && digits.contains(['e', 'E'])
        {
            let text = ast::Value::SingleQuotedString(digits.clone());
            *expr = double(ast::Expr::Value(ast::ValueWithSpan {
                value: text,
                span: *span,
            }));
        }
        std::ops::ControlFlow::Continue(())
    }
}

/// The columns of VALUES, which the planner brings to one type while it reads them.
fn columns(body: &mut ast::SetExpr) {
    let rows = match body {
        ast::SetExpr::Values(values) => &mut values.rows,
        ast::SetExpr::SetOperation { left, right, .. } => {
            columns(left);
            return columns(right);
        }
        _ => return,
    };
    let width = rows.iter().map(|row| row.content.len()).max().unwrap_or(0);
    for position in 0..width {
        let mut cells: Vec<&mut ast::Expr> = rows
            .iter_mut()
            .filter_map(|row| row.content.get_mut(position))
            .collect();
        if cells.iter().any(|cell| number(cell) == Some(Number::Float)) {
            for cell in &mut cells {
                if number(cell) == Some(Number::Exact) {
                    **cell = double((**cell).clone());
                }
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Number {
    Exact,
    Float,
}

/// What kind of number a cell is, if that is written there.
fn number(cell: &ast::Expr) -> Option<Number> {
    match cell {
        ast::Expr::Value(ast::ValueWithSpan {
            value: ast::Value::Number(digits, _),
            ..
        }) => Some(match digits.contains(['e', 'E']) {
            true => Number::Float,
            false => Number::Exact,
        }),
        ast::Expr::UnaryOp {
            op: ast::UnaryOperator::Minus | ast::UnaryOperator::Plus,
            expr,
        }
        | ast::Expr::Nested(expr) => number(expr),
        ast::Expr::Cast {
            data_type:
                ast::DataType::Double(_)
                | ast::DataType::DoublePrecision
                | ast::DataType::Float(_)
                | ast::DataType::Real,
            ..
        } => Some(Number::Float),
        _ => None,
    }
}

fn double(expr: ast::Expr) -> ast::Expr {
    ast::Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(expr),
        data_type: ast::DataType::Double(ast::ExactNumberInfo::None),
        array: false,
        format: None,
    }
}
