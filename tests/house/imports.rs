//! Which file imports which, and where such imports go in circles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use syn::visit::Visit;

/// By name, the names of what it imports.
type ImportEdges = BTreeMap<String, BTreeSet<String>>;

/// Which files import which.
pub(crate) struct ImportGraph {
    /// What a `mod.rs` (or `lib.rs`) has to do with the files below it is left out: it lists and re-exports them, and they use what it
    /// defines.
    files: ImportEdges,
    /// The rooms of the coordinator: what lies directly in its `src`.
    rooms: ImportEdges,
}

impl ImportGraph {
    pub(crate) fn read(root: &Path, files: &BTreeSet<String>) -> Self {
        let modules: BTreeMap<Vec<String>, String> = files
            .iter()
            .map(|file| (module_path(file), file.clone()))
            .collect();
        let mut graph = Self {
            files: ImportEdges::new(),
            rooms: ImportEdges::new(),
        };

        for (path, file) in &modules {
            for import in find_imports(root, path, file) {
                let Some((target, name)) = resolve(&modules, &import) else {
                    continue;
                };
                let is_family = target.starts_with(path) || path.starts_with(target);
                if name != file && !is_family {
                    graph
                        .files
                        .entry(file.clone())
                        .or_default()
                        .insert(name.clone());
                }
                if let (Some(from), Some(to)) = (find_room(path), find_room(target))
                    && from != to
                {
                    graph
                        .rooms
                        .entry(from.to_owned())
                        .or_default()
                        .insert(to.to_owned());
                }
            }
        }
        graph
    }

    /// Groups of files that import each other, directly or through others of the group.
    pub(crate) fn file_cycles(&self) -> Vec<Vec<String>> {
        strongly_connected(&self.files)
    }

    /// Groups of rooms of the coordinator that import each other, directly or through others of the group.
    pub(crate) fn room_cycles(&self) -> Vec<Vec<String>> {
        strongly_connected(&self.rooms)
    }
}

/// The room of the coordinator in which a module lies.
fn find_room(path: &[String]) -> Option<&str> {
    match path {
        [krate, room, ..] if krate == "coordinator" => Some(room),
        _ => None,
    }
}

fn find_imports(root: &Path, path: &[String], file: &str) -> BTreeSet<Vec<String>> {
    let text = std::fs::read_to_string(root.join(file)).expect("a source file can be read");
    let syntax = syn::parse_file(&text).expect("a source file can be parsed");
    let mut imports = Imports {
        krate: path[0].clone(),
        module: path.to_vec(),
        found: BTreeSet::new(),
    };
    imports.visit_file(&syntax);
    imports.found
}

/// `coordinator/src/store/mod.rs` is `[coordinator, store]`.
fn module_path(file: &str) -> Vec<String> {
    let mut parts: Vec<String> = file
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    parts.retain(|part| part != "src");
    if matches!(
        parts.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        parts.pop();
    }
    parts
}

/// The file with the longest module path that an import begins with.
fn resolve<'a>(
    modules: &'a BTreeMap<Vec<String>, String>,
    import: &[String],
) -> Option<(&'a Vec<String>, &'a String)> {
    (1..=import.len())
        .rev()
        .find_map(|length| modules.get_key_value(&import[..length]))
}

struct Imports {
    krate: String,
    module: Vec<String>,
    found: BTreeSet<Vec<String>>,
}

impl Imports {
    fn add(&mut self, segments: &[String]) {
        let mut path = match segments.first().map(String::as_str) {
            Some("crate") => vec![self.krate.clone()],
            Some("self") => self.module.clone(),
            Some("super") => self.module[..self.module.len() - 1].to_vec(),
            _ => return,
        };
        for segment in &segments[1..] {
            if segment == "super" {
                path.pop();
            } else {
                path.push(segment.clone());
            }
        }
        self.found.insert(path);
    }

    fn add_tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let mut path = prefix.to_vec();
        match tree {
            syn::UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.add_tree(&path, &part.tree);
            }
            syn::UseTree::Name(part) => {
                path.push(part.ident.to_string());
                self.add(&path);
            }
            syn::UseTree::Rename(part) => {
                path.push(part.ident.to_string());
                self.add(&path);
            }
            syn::UseTree::Glob(_) => self.add(&path),
            syn::UseTree::Group(group) => group
                .items
                .iter()
                .for_each(|item| self.add_tree(&path, item)),
        }
    }
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !super::is_for_tests(&item.attrs) && item.content.is_some() {
            let name = item.ident.to_string();
            self.module.push(name);
            syn::visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !super::is_for_tests(&item.attrs) {
            self.add_tree(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if segments.len() > 1 {
            self.add(&segments);
        }
        syn::visit::visit_path(self, path);
    }
}

/// Tarjan's algorithm; groups of one are left out.
fn strongly_connected(edges: &ImportEdges) -> Vec<Vec<String>> {
    let mut search = Search {
        edges,
        order: BTreeMap::new(),
        low: BTreeMap::new(),
        stack: Vec::new(),
        groups: Vec::new(),
    };
    for file in edges.keys() {
        if !search.order.contains_key(file) {
            search.visit(file);
        }
    }
    search.groups
}

struct Search<'a> {
    edges: &'a ImportEdges,
    order: BTreeMap<String, usize>,
    low: BTreeMap<String, usize>,
    stack: Vec<String>,
    groups: Vec<Vec<String>>,
}

impl Search<'_> {
    fn visit(&mut self, file: &str) {
        let number = self.order.len();
        self.order.insert(file.to_owned(), number);
        self.low.insert(file.to_owned(), number);
        self.stack.push(file.to_owned());

        for next in self.edges.get(file).into_iter().flatten() {
            if !self.order.contains_key(next) {
                self.visit(next);
                let low = self.low[file].min(self.low[next]);
                self.low.insert(file.to_owned(), low);
            } else if self.stack.contains(next) {
                let low = self.low[file].min(self.order[next]);
                self.low.insert(file.to_owned(), low);
            }
        }

        if self.low[file] == number {
            let start = self
                .stack
                .iter()
                .position(|entry| entry == file)
                .expect("a file under search is on the stack");
            let group = self.stack.split_off(start);
            if group.len() > 1 {
                self.groups.push(group);
            }
        }
    }
}
