#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| coretex_core::test_util::fuzz::workflow(bytes));
