//! The book and README: their shell lines run, their sweep files are read, their code in Rust is compiled, their links lead
//! somewhere, the reference of commands is what the programs print, and the files, tests and metrics that they name exist.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ergodic_common::Spec;
use ergodic_common::metric::Metric;
use ergodic_common::spec::SpecSource;
use ergodic_tests::{program, skip};

use crate::program_trials::has_python;

/// How long all lines of one page may take: a minute or two, beside builds and other tests.
const PAGE_TIMEOUT: Duration = Duration::from_secs(600);

/// What the fragments of sweep files on the pages complete.
const BASE: &str = r#"
name = "base"
repeats = 20
[data]
dataset = "glyphs"
train = 400
test = 100
[model]
kind = "mlp"
[train]
epochs = 1
batch_size = 20
[grid]
lr = [0.1, 0.2]
"#;

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("tests lie in the workspace").to_owned()
}

/// README and all pages of the book.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    collect_pages(&root().join("docs/src"), &mut pages);
    pages.sort();
    pages
}

fn collect_pages(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder)
        .expect("a folder of pages")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            collect_pages(&path, pages);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            pages.push(path);
        }
    }
}

/// The fenced blocks of a page whose info string is `info`.
fn blocks(page: &Path, info: &str) -> Vec<String> {
    let text = std::fs::read_to_string(page).expect("a page can be read");
    let mut found = Vec::new();
    let mut block: Option<(bool, String)> = None;

    for line in text.lines() {
        match (&mut block, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => block = Some((language == info, String::new())),
            (Some(_), Some(_)) => {
                let (wanted, text) = block.take().expect("a block is open");
                if wanted {
                    found.push(text);
                }
            }
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(block.is_none(), "{}: a block is not closed", page.display());
    found
}

/// Copies a folder with all that is below it.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from)
        .expect("a folder of the repository")
        .flatten()
    {
        let copy = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &copy);
        } else {
            std::fs::copy(entry.path(), copy).expect("a file can be copied");
        }
    }
}

/// Makes a folder that has what pages name of a clone in which everything is built: the sweeps, and the programs.
fn make_clone() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    copy_folder(&root().join("sweeps"), &folder.path().join("sweeps"));

    let target = folder.path().join("target");
    std::fs::create_dir(&target).expect("a folder can be made");
    std::os::unix::fs::symlink(programs(), target.join("release")).expect("a link can be made");
    folder
}

/// The folder of the programs that are tested.
fn programs() -> PathBuf {
    let program = program("ergodic");
    let folder = program.parent().expect("programs lie in a folder");
    folder.to_owned()
}

/// Runs the shell lines of a page in a fresh folder and a network of its own, in which all ports are free.
fn run_page(page: &Path) -> Result<(), String> {
    let folder = make_clone();
    let script = format!("set -e\nip link set lo up\n{}", blocks(page, "sh").concat());
    let log = folder.path().join(".log");
    let output = std::fs::File::create(&log).expect("a log can be made");
    let path = std::env::var("PATH").unwrap_or_default();

    // All processes of the page end with its process namespace.
    let mut child = Command::new("unshare")
        .args([
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            &script,
        ])
        .current_dir(folder.path())
        .env("PATH", format!("{}:{path}", programs().display()))
        .env("HOME", folder.path())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stderr(output.try_clone().expect("a log can be shared"))
        .stdout(output)
        .spawn()
        .expect("unshare can be run");

    let deadline = std::time::Instant::now() + PAGE_TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break Some(status);
        }
        if std::time::Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };

    if status.is_some_and(|status| status.success()) {
        return Ok(());
    }
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    Err(format!("{}: {status:?}\n{said}", page.display()))
}

fn has_namespaces() -> bool {
    let probe = Command::new("unshare")
        .args([
            "--net",
            "--pid",
            "--fork",
            "--mount-proc",
            "ip",
            "link",
            "set",
            "lo",
            "up",
        ])
        .output();
    probe.is_ok_and(|output| output.status.success())
}

/// Whether the shell lines of a page find what they call; otherwise it is said that they are left out.
fn finds_programs(page: &Path) -> bool {
    let needs_python = blocks(page, "sh")
        .iter()
        .any(|block| block.contains("python3"));
    if !needs_python || has_python() {
        return true;
    }

    let what = format!("the_shell_lines_of_the_book_run, {}", page.display());
    skip(&what, "python3", "there is no python3");
    false
}

#[test]
fn the_shell_lines_of_the_book_run() {
    if !has_namespaces() {
        return skip(
            "the_shell_lines_of_the_book_run",
            "netns",
            "there are no namespaces here",
        );
    }

    let pages = pages()
        .into_iter()
        .filter(|page| !blocks(page, "sh").is_empty() && finds_programs(page));
    let failures: Vec<String> = pages.filter_map(|page| run_page(&page).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn the_sweep_files_of_the_book_are_read() {
    let mut examples = 0;
    for page in pages() {
        for block in blocks(&page, "toml") {
            examples += 1;
            let text = complete_example(&block);
            let source = SpecSource {
                text,
                ..SpecSource::default()
            };
            if let Err(error) = Spec::read_new(&source) {
                // A file that the example names is not here; everything else has been read by then.
                let is_missing_file = error.to_string().contains("no such file")
                    || error.to_string().contains("is not among the files");
                assert!(
                    is_missing_file,
                    "{}: {error}\n{}",
                    page.display(),
                    source.text
                );
            }
        }
    }
    assert!(examples > 20, "only {examples} examples");
}

/// A whole sweep file: the example itself if it names its sweep, otherwise the base with its tables and keys replaced.
fn complete_example(example: &str) -> String {
    let example: toml::Table = example.parse().expect("an example is TOML");
    let has_cells = example.contains_key("grid") || example.contains_key("case");
    if example.contains_key("name") && has_cells {
        return toml::to_string(&example).expect("a table can be written");
    }

    let mut base: toml::Table = BASE.parse().expect("the base is TOML");
    merge_tables(&mut base, example);
    toml::to_string(&base).expect("a table can be written")
}

fn merge_tables(base: &mut toml::Table, more: toml::Table) {
    for (key, value) in more {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge_tables(old, new),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// The example in a crate's documentation, without the lines that readers do not see.
fn read_doctest(file: &str) -> String {
    let source = std::fs::read_to_string(root().join(file)).expect("a source file");
    let lines = source
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .skip_while(|line| *line != "```")
        .skip(1)
        .take_while(|line| *line != "```")
        .filter(|line| !line.starts_with("# "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// A doctest is compiled by `cargo test`, a block of the book is not.
#[test]
fn the_worker_of_the_book_is_the_one_that_tests_compile() {
    let page = root().join("docs/src/your-own-code.md");
    let doctest = read_doctest("worker/src/experiment/mod.rs");
    assert!(doctest.contains("fn main()"), "{doctest}");
    assert_eq!(blocks(&page, "rust"), [doctest]);
}

#[test]
fn the_manifest_of_the_book_has_the_versions_of_the_workspace() {
    let page = root().join("docs/src/your-own-code.md");
    let [manifest] = &blocks(&page, "toml,by-hand")[..] else {
        panic!("one manifest is expected in {}", page.display());
    };
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let workspace: toml::Table = workspace.parse().expect("a manifest is TOML");
    let workspace = &workspace["workspace"];
    assert_eq!(
        manifest["package"]["edition"],
        workspace["package"]["edition"]
    );

    let ours = &workspace["dependencies"];
    let named = manifest["dependencies"]
        .as_table()
        .expect("dependencies are a table");
    for (name, dependency) in named {
        assert_eq!(dependency["version"], ours[name]["version"], "{name}");
    }
    assert!(named.contains_key("ergodic-worker"), "{named:?}");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).expect("a page can be read");
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !page
                .parent()
                .expect("a page lies in a folder")
                .join(target)
                .exists()
            {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn every_page_is_in_the_summary() {
    let summary = std::fs::read_to_string(root().join("docs/src/SUMMARY.md")).expect("a summary");
    for page in pages() {
        let Ok(name) = page.strip_prefix(root().join("docs/src")) else {
            continue;
        };
        let is_listed = summary.contains(&format!("({})", name.display()));
        assert!(
            is_listed || name.ends_with("SUMMARY.md"),
            "{}",
            name.display()
        );
    }
}

/// What `program … --help` prints, on lines of 100 characters at most.
fn help(name: &str, command: &[&str]) -> String {
    let output = Command::new(program(name))
        .args(command)
        .arg("--help")
        .env_clear()
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{command:?}");

    let text = String::from_utf8(output.stdout).expect("help is text");
    text.lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
}

fn reference_of_commands() -> String {
    let mut page = String::from(
        "# Commands\n\nThis page is what the programs print for `--help`. `ergodic help COMMAND` prints the same.\n",
    );
    let mut add = |title: &str, text: &str| {
        let _ = write!(page, "\n## {title}\n\n```text\n{text}\n```\n");
    };

    add("ergodic", &help("ergodic", &[]));
    let command = ergodic::cli::command::build_command();
    for sub in command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
    {
        let name = sub.get_name();
        add(&format!("ergodic {name}"), &help("ergodic", &[name]));
        for inner in sub
            .get_subcommands()
            .filter(|inner| inner.get_name() != "help")
        {
            let inner = inner.get_name();
            add(
                &format!("ergodic {name} {inner}"),
                &help("ergodic", &[name, inner]),
            );
        }
    }
    add("ergodic-worker", &help("ergodic-worker", &[]));
    for command in ["bench", "completions", "man"] {
        add(
            &format!("ergodic-worker {command}"),
            &help("ergodic-worker", &[command]),
        );
    }
    page
}

#[test]
fn the_reference_of_commands_is_what_the_programs_print() {
    let file = root().join("docs/src/reference/commands.md");
    let page = reference_of_commands();
    if std::env::var_os("ERGODIC_UPDATE_DOCS").is_some() {
        std::fs::write(&file, &page).expect("the page can be written");
    }

    let stored = std::fs::read_to_string(&file).unwrap_or_default();
    let hint = "run this test with ERGODIC_UPDATE_DOCS=1";
    assert!(
        stored == page,
        "{} is not what the programs print: {hint}",
        file.display()
    );
}

/// All files of the repository, by their paths from its root.
fn repository_files() -> Vec<String> {
    let mut files = Vec::new();
    collect_files(&root(), "", &mut files);
    files.sort();
    files
}

fn collect_files(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder)
        .expect("a folder of the repository")
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" {
            continue;
        }

        let path = format!("{prefix}{name}");
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_files(&entry.path(), &format!("{path}/"), files);
        } else {
            files.push(path);
        }
    }
}

/// The Markdown files of the repository and their texts, without fenced blocks. The changelog names files of its time.
fn markdown_files(files: &[String]) -> Vec<(&String, String)> {
    let pages = files
        .iter()
        .filter(|file| file.ends_with(".md") && *file != "CHANGELOG.md");
    pages
        .map(|file| {
            let text = std::fs::read_to_string(root().join(file)).expect("a page can be read");
            (file, remove_blocks(&text))
        })
        .collect()
}

fn remove_blocks(text: &str) -> String {
    let parts = text.split("```").step_by(2);
    parts.collect::<Vec<_>>().concat()
}

/// What stands in backticks on a line.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn is_source_path(span: &str) -> bool {
    let ends = [".rs", ".proto", ".py", ".sh", ".sbatch"];
    let is_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    ends.iter().any(|end| span.ends_with(end)) && span.chars().all(is_path)
}

/// Pages name files from some folder on, as in `store/writer.rs`.
#[test]
fn files_that_pages_name_exist() {
    let files = repository_files();
    let mut named = 0;
    let mut missing = Vec::new();
    for (page, text) in markdown_files(&files) {
        for span in text.lines().flat_map(code_spans) {
            if !is_source_path(span) {
                continue;
            }

            named += 1;
            let end = format!("/{span}");
            if !files
                .iter()
                .any(|file| file == span || file.ends_with(&end))
            {
                missing.push(format!("{page}: {span}"));
            }
        }
    }

    assert_eq!(missing, Vec::<String>::new());
    assert!(named > 150, "only {named} files are named");
}

/// The first column of its tables has files and folders, in the folder that the heading names.
#[test]
fn files_and_folders_of_the_architecture_exist() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("a page");
    let mut folder = root();
    let mut named = 0;
    let mut missing = Vec::new();

    for line in text.lines() {
        if line.starts_with('#') {
            folder = root().join(code_spans(line).next().unwrap_or_default());
        }

        let Some(first) = line.strip_prefix('|').and_then(|row| row.split('|').next()) else {
            continue;
        };
        for span in code_spans(first) {
            named += 1;
            let path = folder.join(span);
            if !path.exists() {
                missing.push(path.display().to_string());
            }
        }
    }

    assert_eq!(missing, Vec::<String>::new());
    assert!(named > 40, "only {named} files and folders are named");
}

/// Tests are named by file and function, as in `crashes::a_killed_worker_…`.
#[test]
fn tests_that_the_page_of_faults_names_exist() {
    let text = std::fs::read_to_string(root().join("tests/FAULTS.md")).expect("a page");
    let mut named = 0;
    let mut missing = Vec::new();

    for span in text.lines().flat_map(code_spans) {
        let Some((module, test)) = span.split_once("::") else {
            continue;
        };
        let file = root().join(format!("tests/e2e/{module}.rs"));
        let Ok(source) = std::fs::read_to_string(&file) else {
            continue;
        };

        named += 1;
        let function = format!("fn {}", test.trim_end_matches('…'));
        if !source.contains(&function) {
            missing.push(span.to_owned());
        }
    }

    assert_eq!(missing, Vec::<String>::new());
    assert!(named > 30, "only {named} tests are named");
}

#[test]
fn the_page_of_metrics_lists_every_metric() {
    let page = root().join("docs/src/reference/metrics.md");
    let text = std::fs::read_to_string(page).expect("the page of metrics");
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| metric | definition |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let listed: BTreeSet<&str> = rows
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(code_spans)
        .collect();

    let mut metrics: BTreeSet<&str> = Metric::NAMES.iter().map(|(name, _)| *name).collect();
    metrics.insert("weight_norm_sq[LAYER]");
    assert_eq!(listed, metrics);
}
