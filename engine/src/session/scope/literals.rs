//! Literals as SQL reads them, where the planner reads them otherwise.

use datafusion::sql::sqlparser::ast;

/// Makes numbers with an exponent the floats that SQL says they are; the planner reads every literal as a decimal.
pub(super) struct Floats;

impl ast::VisitorMut for Floats {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> std::ops::ControlFlow<()> {
        if let ast::Expr::Value(ast::ValueWithSpan {
            value: ast::Value::Number(digits, _),
            span,
        }) = expr
            && digits.contains(['e', 'E'])
        {
            let text = ast::Value::SingleQuotedString(digits.clone());
            *expr = ast::Expr::Cast {
                kind: ast::CastKind::Cast,
                expr: Box::new(ast::Expr::Value(ast::ValueWithSpan {
                    value: text,
                    span: *span,
                })),
                data_type: ast::DataType::Double(ast::ExactNumberInfo::None),
                array: false,
                format: None,
            };
        }
        std::ops::ControlFlow::Continue(())
    }
}
