#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ergodic_tests::fuzz::wire(bytes));
