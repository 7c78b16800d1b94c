//! The shape all functions of this crate share: a name, parameters, a result, words for people, and the work.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::types::{logical_binary, logical_string};
use datafusion::common::{Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{
    Coercion, ColumnarValue, DocSection, Documentation, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, TypeSignature, TypeSignatureClass, Volatility,
};

use crate::values::{Bytes, Texts};

/// What a parameter takes. Nothing is turned into text silently: `url_extract_host(42)` is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Text,
    TextOrBytes,
    /// It may be left out, as the last one.
    TextOrNothing,
}

/// One parameter: its name, what it takes, and what it is.
pub(crate) type Parameter = (&'static str, Takes, &'static str);

/// What is told of a function, to people and to the planner.
pub(crate) struct Told {
    pub(crate) name: &'static str,
    pub(crate) parameters: &'static [Parameter],
    pub(crate) returns: DataType,
    pub(crate) about: &'static str,
    /// `SELECT .. -- result`; a test runs it.
    pub(crate) example: &'static str,
}

type Work = Box<dyn Fn(&Call<'_>) -> Result<ArrayRef> + Send + Sync>;

/// The values of one call on one batch.
pub(crate) struct Call<'a> {
    arguments: &'a [ColumnarValue],
    pub(crate) rows: usize,
    pub(crate) options: &'a ConfigOptions,
}

impl Call<'_> {
    /// An argument that was left out is NULL.
    pub(crate) fn texts(&self, argument: usize) -> Result<Texts<'_>> {
        match self.arguments.get(argument) {
            Some(value) => Texts::of(value),
            None => Ok(Texts::Same(None)),
        }
    }

    pub(crate) fn bytes(&self, argument: usize) -> Result<Bytes<'_>> {
        Bytes::of(&self.arguments[argument])
    }
}

/// A function whose answer depends on its arguments alone.
pub(crate) fn pure(told: Told, work: fn(&Call<'_>) -> Result<ArrayRef>) -> ScalarUDF {
    Scalar::udf(told, Volatility::Immutable, Box::new(work))
}

/// A function whose answer depends on its arguments and on what the session has set.
pub(crate) fn stable(
    told: Told,
    work: impl Fn(&Call<'_>) -> Result<ArrayRef> + Send + Sync + 'static,
) -> ScalarUDF {
    Scalar::udf(told, Volatility::Stable, Box::new(work))
}

struct Scalar {
    name: &'static str,
    signature: Signature,
    returns: DataType,
    documentation: Documentation,
    work: Work,
}

impl Scalar {
    fn udf(told: Told, volatility: Volatility, work: Work) -> ScalarUDF {
        let parameters = told.parameters.iter();
        let mut documentation = documentation(
            told.name,
            told.about,
            parameters.map(|(name, _, about)| (*name, *about)),
            told.example,
        );
        if let Some((last, Takes::TextOrNothing, _)) = told.parameters.last() {
            let (always, optional) = (format!(", {last})"), format!(" [, {last}])"));
            documentation.syntax_example = documentation.syntax_example.replace(&always, &optional);
        }
        ScalarUDF::from(Self {
            name: told.name,
            signature: signature(told.parameters, volatility),
            returns: told.returns,
            documentation,
            work,
        })
    }
}

fn signature(parameters: &[Parameter], volatility: Volatility) -> Signature {
    if parameters.is_empty() {
        return Signature::nullary(volatility);
    }
    let text = Coercion::new_exact(TypeSignatureClass::Native(logical_string()));
    let bytes = Coercion::new_exact(TypeSignatureClass::Native(logical_binary()));
    let mut all: Vec<Vec<Coercion>> = vec![Vec::new()];
    for (_, takes, _) in parameters {
        let kinds = match takes {
            Takes::Text => vec![Some(&text)],
            Takes::TextOrBytes => vec![Some(&text), Some(&bytes)],
            Takes::TextOrNothing => vec![None, Some(&text)],
        };
        all = all
            .into_iter()
            .flat_map(|before| {
                kinds.iter().map(move |kind| {
                    let mut one = before.clone();
                    one.extend(kind.cloned());
                    one
                })
            })
            .collect();
    }
    let mut all: Vec<TypeSignature> = all.into_iter().map(TypeSignature::Coercible).collect();
    let signature = match (all.pop(), all.is_empty()) {
        (Some(only), true) => Signature::new(only, volatility),
        (last, _) => {
            all.extend(last);
            Signature::one_of(all, volatility)
        }
    };
    let names = parameters.iter().map(|(name, ..)| (*name).to_owned());
    // Names are a convenience: a signature that cannot carry them works by position.
    signature
        .clone()
        .with_parameter_names(names.collect::<Vec<_>>())
        .unwrap_or(signature)
}

/// The words of a function, in the one form that `SHOW FUNCTIONS` and the test of examples read.
pub(crate) fn documentation(
    name: &str,
    about: &str,
    parameters: impl Iterator<Item = (&'static str, &'static str)>,
    example: &str,
) -> Documentation {
    const SECTION: DocSection = DocSection {
        include: true,
        label: "Selvedge Functions",
        description: None,
    };
    let parameters: Vec<_> = parameters.collect();
    let names: Vec<&str> = parameters.iter().map(|(name, _)| *name).collect();
    let syntax = format!("{name}({})", names.join(", "));
    let mut builder = Documentation::builder(SECTION, about, syntax).with_sql_example(example);
    for (name, about) in parameters {
        builder = builder.with_argument(name, about);
    }
    builder.build()
}

impl ScalarUDFImpl for Scalar {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args
            .args
            .iter()
            .all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let array = (self.work)(&Call {
            arguments: &args.args,
            rows: if constant { 1 } else { args.number_rows },
            options: &args.config_options,
        })?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &array, 0,
            )?));
        }
        Ok(ColumnarValue::Array(array))
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

// The name alone tells these functions apart.
impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Scalar {}

impl std::hash::Hash for Scalar {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scalar")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A text for every row; NULL stays NULL.
pub(crate) fn texts_of<'a>(
    rows: usize,
    mut value: impl FnMut(usize) -> Option<std::borrow::Cow<'a, str>>,
) -> ArrayRef {
    let mut builder = datafusion::arrow::array::StringBuilder::with_capacity(rows, rows * 16);
    for row in 0..rows {
        builder.append_option(value(row));
    }
    Arc::new(builder.finish())
}
