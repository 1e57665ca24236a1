//! What tells a program from others: random ids, and the name of its machine.

/// Random bytes from the operating system.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes, which hash maps take, too");
    bytes
}

/// `N` random bytes as hex digits, two for each.
pub fn random_hex<const N: usize>() -> String {
    hex::encode(random_bytes::<N>())
}

/// The name of this machine; empty where the system does not say.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::identity::*;

    #[test]
    fn random_ids_have_their_length_and_differ() {
        let ids: BTreeSet<String> = (0..1000).map(|_| random_hex::<16>()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
