//! Errors of queries, with messages for the user.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use ergodic_common::ErrorCode;
use ergodic_common::spec_file::suggest::suggest_nearest;
use ergodic_proto::status::UserError;

/// Bytes that sorting, grouping and joining may hold; what is more goes to temporary files, as far as that is possible.
pub(super) const MEMORY_LIMIT: usize = 1 << 30;

/// Why a query has no answer.
pub(super) enum SqlQueryError {
    Query(DataFusionError),
    /// In the words of its place.
    User(UserError),
}

impl From<DataFusionError> for SqlQueryError {
    fn from(error: DataFusionError) -> Self {
        Self::Query(error)
    }
}

impl From<UserError> for SqlQueryError {
    fn from(error: UserError) -> Self {
        Self::User(error)
    }
}

/// A table with its columns.
pub(super) type TableColumns = (&'static str, Vec<String>);

const BUG_REPORT_REQUEST: &str = "Please help us to resolve this by filing a bug report in our issue tracker: \
                   https://github.com/apache/datafusion/issues. ";

/// Converts an error of DataFusion. Lists tables and columns if a name was unknown.
pub(super) fn to_user_error(error: &DataFusionError, known: &[TableColumns]) -> UserError {
    // DataFusion collects several errors; the first one is mostly the cause.
    let first = error.iter().next().unwrap_or(error);
    let root = first.find_root();
    if let Some(message) =
        describe_unknown_column(root, known).or_else(|| describe_unknown_table(root, known))
    {
        return UserError::new(
            ErrorCode::NotFound,
            format!("{message}{}", list_known_tables(known)),
        );
    }

    let message = first.strip_backtrace();
    // DataFusion takes some mistakes of a query for its own bugs and asks for a report.
    let message: Vec<&str> = message
        .lines()
        .map(|line| {
            line.split_once(BUG_REPORT_REQUEST)
                .map_or(line, |(_, told)| told)
        })
        .collect();
    let message = message.join("\n");

    match root {
        DataFusionError::ResourcesExhausted(why) => {
            let memory = MEMORY_LIMIT >> 30;
            let message = format!(
                "the query needs more than {memory} GiB: select less, or aggregate earlier ({why})"
            );
            UserError::new(ErrorCode::BadInput, message)
        }
        DataFusionError::ObjectStore(_)
        | DataFusionError::ParquetError(_)
        | DataFusionError::IoError(_) => {
            let message = format!(
                "a file of a dataset cannot be read; an export may be rewriting it, so try again: {message}"
            );
            UserError::new(ErrorCode::Internal, message)
        }
        DataFusionError::Internal(_) => UserError::new(ErrorCode::Internal, message),
        _ => UserError::new(
            ErrorCode::BadInput,
            format!("the query cannot be answered: {message}"),
        ),
    }
}

fn describe_unknown_column(error: &DataFusionError, known: &[TableColumns]) -> Option<String> {
    let DataFusionError::SchemaError(error, _) = error else {
        return None;
    };
    let SchemaError::FieldNotFound {
        field,
        valid_fields,
    } = &**error
    else {
        return None;
    };
    let near = match valid_fields.is_empty() {
        true => suggest_name(
            &field.name,
            known
                .iter()
                .flat_map(|(_, columns)| columns)
                .map(String::as_str),
        ),
        false => suggest_name(
            &field.name,
            valid_fields.iter().map(|column| column.name.as_str()),
        ),
    };

    Some(format!(
        "there is no column '{}'{near}",
        field.flat_name().replace("ergodic.public.", "")
    ))
}

/// Describes an unknown table, which DataFusion reports as a sentence without an error kind.
fn describe_unknown_table(error: &DataFusionError, known: &[TableColumns]) -> Option<String> {
    let DataFusionError::Plan(message) = error else {
        return None;
    };
    let name = message
        .lines()
        .next()?
        .strip_prefix("table '")?
        .split_once("' not found")?
        .0;
    let name = name.trim_start_matches("ergodic.public.");

    Some(format!(
        "there is no table '{name}'{}",
        suggest_name(name, known.iter().map(|(table, _)| *table))
    ))
}

fn suggest_name<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = suggest_nearest(name, known);
    if near.starts_with("did you mean") {
        format!(", {near}")
    } else {
        String::new()
    }
}

fn list_known_tables(known: &[TableColumns]) -> String {
    let line = |(table, columns): &TableColumns| {
        let columns: Vec<String> = columns.iter().map(|column| quote_column(column)).collect();
        format!("\n  {table}: {}", columns.join(", "))
    };

    if known.is_empty() {
        String::new()
    } else {
        format!("\nthere are{}", known.iter().map(line).collect::<String>())
    }
}

/// Quotes a name as in a query.
fn quote_column(column: &str) -> String {
    let plain = column
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain {
        column.to_owned()
    } else {
        format!("\"{column}\"")
    }
}
