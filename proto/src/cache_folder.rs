//! The folder of datasets that all programs of a user share. Each file has the hash of its content as its name.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ergodic_common::ids::FileHash;

/// The user's cache as the XDG base directory specification has it, which lets relative paths count for nothing; `None` if the
/// environment names neither it nor a home directory. The crate `etcetera` wants a home directory even where `XDG_CACHE_HOME`
/// is set, and users in containers may have none.
pub fn find_cache_folder() -> Option<PathBuf> {
    choose_cache_folder(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"))
}

fn choose_cache_folder(cache_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let named = cache_home
        .map(PathBuf::from)
        .filter(|base| base.is_absolute());
    let base = named.or_else(|| {
        home.filter(|home| !home.is_empty())
            .map(|home| PathBuf::from(home).join(".cache"))
    });

    base.map(|base| base.join("ergodic"))
}

/// The path of the file with this hash in a cache.
pub fn cached_file_path(cache: &Path, hash: &FileHash) -> PathBuf {
    cache.join(hash.to_string())
}

#[cfg(test)]
mod tests {
    use crate::cache_folder::*;

    #[test]
    fn the_cache_is_where_the_specification_has_it() {
        let choose = |cache_home: Option<&str>, home: Option<&str>| {
            choose_cache_folder(cache_home.map(OsString::from), home.map(OsString::from))
        };
        let of_home = Some(PathBuf::from("/home/a/.cache/ergodic"));

        assert_eq!(
            choose(Some("/cache"), Some("/home/a")),
            Some("/cache/ergodic".into())
        );
        assert_eq!(choose(Some("/cache"), None), Some("/cache/ergodic".into()));
        assert_eq!(choose(Some("relative"), Some("/home/a")), of_home);
        assert_eq!(choose(None, Some("/home/a")), of_home);
        assert_eq!(choose(None, Some("")), None);
        assert_eq!(choose(None, None), None);
    }
}
