//! The shell for a person: read until a semicolon, run, repeat.
//!
//! `complete` helps while a statement is typed, `meta` holds the commands that begin with a backslash.

mod complete;
mod meta;

use std::env;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Behavior, CompletionType, Config, Editor};
use selvedge_engine::split;
use tokio::runtime::Handle;

use crate::exit::Exit;
use crate::run::{Failure, Runner, message, note};
use complete::Helper;
use meta::Meta;

/// Talks until `\q` or ctrl-d. `lake` is the name in the prompt.
pub(crate) fn talk(runner: &mut Runner, runtime: &Handle, lake: &str, quiet: bool) -> Exit {
    let history = history_file();
    let mut editor = match editor(runner, runtime) {
        Ok(editor) => editor,
        Err(error) => {
            note(&format!("error: cannot use this terminal: {error}"));
            return Exit::Io;
        }
    };
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    if !quiet {
        let version = env!("CARGO_PKG_VERSION");
        note(&format!(
            "selvedge {version}: end statements with ; and see \\? for help"
        ));
    }
    let prompt = format!("{}> ", short_name(lake));
    loop {
        let line = match editor.readline(&prompt) {
            Ok(line) => line,
            // Ctrl-C throws away what was typed.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Exit::Ok,
            Err(error) => {
                note(&format!("error: cannot read from the terminal: {error}"));
                return Exit::Io;
            }
        };
        remember(&mut editor, history.as_ref(), &line);
        runner.parted = false;
        if meta::leaves(&line) {
            return Exit::Ok;
        }
        let exit = match line.trim().strip_prefix('\\') {
            Some(command) => run_meta(runner, runtime, command),
            None => run_sql(runner, runtime, &line),
        };
        if let Some(exit) = exit {
            return exit;
        }
        if let Some(helper) = editor.helper_mut() {
            helper.forget_names();
        }
    }
}

fn editor(runner: &Runner, runtime: &Handle) -> rustyline::Result<Editor<Helper, DefaultHistory>> {
    // With results going to a file, the prompt must not go there too.
    let behavior = match io::stdout().is_terminal() {
        true => Behavior::Stdio,
        false => Behavior::PreferTerm,
    };
    let config = Config::builder()
        .behavior(behavior)
        .completion_type(CompletionType::List)
        // A line that begins with a space is kept out, as in other shells: a way to type a secret.
        .history_ignore_space(true)
        .max_history_size(10_000)?
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Helper::new(runner.session.clone(), runtime.clone())));
    Ok(editor)
}

/// Runs what was typed. A statement that fails does not end the session; an output that is closed does.
fn run_sql(runner: &mut Runner, runtime: &Handle, text: &str) -> Option<Exit> {
    for statement in split(text) {
        if let Err(failure) = runtime.block_on(runner.statement(statement.text)) {
            if let Some(text) = message(&failure, statement.text) {
                note(&text);
            }
            // The statements typed after it may rely on it.
            return matches!(failure, Failure::Output(_)).then_some(Exit::Io);
        }
    }
    None
}

fn run_meta(runner: &mut Runner, runtime: &Handle, command: &str) -> Option<Exit> {
    match Meta::parse(command) {
        Ok(Meta::Quit) => return Some(Exit::Ok),
        Ok(Meta::Help) => note(meta::HELP),
        Ok(Meta::Tables) => return run_sql(runner, runtime, "SHOW TABLES"),
        Ok(Meta::Describe(table)) => {
            return run_sql(runner, runtime, &format!("DESCRIBE {table}"));
        }
        Ok(Meta::Timing(on)) => {
            runner.timing = on.unwrap_or(!runner.timing);
            note(&format!(
                "timing is {}",
                if runner.timing { "on" } else { "off" }
            ));
        }
        Ok(Meta::Format(format)) => {
            runner.format = format.unwrap_or(runner.format);
            note(&format!("format is {}", meta::name(runner.format)));
        }
        Err(mistake) => note(&format!("error: {mistake}")),
    }
    None
}

/// A history that cannot be kept is no reason to stop the person who types.
fn remember(editor: &mut Editor<Helper, DefaultHistory>, file: Option<&PathBuf>, line: &str) {
    if line.trim().is_empty() || !matches!(editor.add_history_entry(line), Ok(true)) {
        return;
    }
    if let Some(file) = file {
        let _ = editor.append_history(file);
    }
}

/// `selvedge/history` in the folder the XDG rules name for state; `None` where no home is known.
fn history_file() -> Option<PathBuf> {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state =
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    let folder = state.join("selvedge");
    fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

/// The last part of the lake's URL.
fn short_name(lake: &str) -> &str {
    let last = lake
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    match last {
        "" | "." | ".." => lake,
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::short_name;

    #[test]
    fn the_prompt_names_the_lake() {
        let names = [
            "./lake",
            "s3://bucket/a/sales/",
            "lake",
            "/",
            "..",
            "memory://",
        ]
        .map(short_name);
        assert_eq!(names, ["lake", "sales", "lake", "/", "..", "memory:"]);
    }
}
