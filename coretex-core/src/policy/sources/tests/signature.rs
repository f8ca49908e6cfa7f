//! docs/spec/policy.md §8.3.

use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use proptest::prelude::*;

use crate::error::chain;
use crate::policy::compile::hex;
use crate::policy::{Base, Kernel as _, LocalKernel, PublicKey, Signature, Signed};

const POLICY: &str = "version: v1\n";

fn key_pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(pair: &Ed25519KeyPair) -> PublicKey {
    STANDARD.encode(pair.public_key()).parse().unwrap()
}

#[test]
fn keys_are_hex_or_base64_by_their_length() {
    // A key of 64 hex digits is base64 too, of 48 bytes.
    for seed in 0..=255 {
        let pair = key_pair(seed);
        let key = pair.public_key().as_ref();
        for text in [
            hex(key),
            hex(key).to_uppercase(),
            format!(" {}\n", hex(key)),
            STANDARD.encode(key),
            STANDARD_NO_PAD.encode(key),
            format!("{}\r\n", STANDARD.encode(key)),
        ] {
            assert_eq!(text.parse::<PublicKey>(), Ok(public(&pair)), "{text}");
        }
    }
}

#[test]
fn what_is_no_key_says_why() {
    let encoding = "invalid key encoding: neither hex nor base64";
    for (text, error) in [
        (String::new(), encoding),
        ("no key!".to_owned(), encoding),
        ("é".to_owned(), encoding),
        (hex(&[7; 31]), "invalid key length: 31 bytes instead of 32"),
        (hex(&[7; 33]), "invalid key length: 33 bytes instead of 32"),
        (hex(&[7; 64]), "invalid key length: 64 bytes instead of 32"),
        (
            STANDARD.encode([0xff; 31]),
            "invalid key length: 31 bytes instead of 32",
        ),
        (
            STANDARD.encode([0xff; 64]),
            "invalid key length: 64 bytes instead of 32",
        ),
    ] {
        assert_eq!(text.parse::<PublicKey>().unwrap_err().to_string(), error, "{text}");
    }
    let short = hex(&[7; 63]).parse::<Signature>().unwrap_err().to_string();
    assert_eq!(short, "invalid signature length: 63 bytes instead of 64");
}

proptest! {
    /// Nothing that is given as key or signature is more than an error.
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        drop(text.parse::<PublicKey>());
        drop(text.parse::<Signature>());
        for text in [hex(&bytes), STANDARD.encode(&bytes)] {
            if bytes.len() == 32 {
                prop_assert!(text.parse::<PublicKey>().is_ok());
            }
            if bytes.len() == 64 {
                prop_assert!(text.parse::<Signature>().is_ok());
            }
        }
    }

    /// Any 32 bytes pass for a key, and verify nothing.
    #[test]
    fn any_key_verifies_or_not(key in any::<[u8; 32]>(), signature in any::<[u8; 32]>()) {
        let signature: Signature = hex(&[signature, key].concat()).parse().unwrap();
        let signed = Signed::by(hex(&key).parse().unwrap()).with_signature(signature);
        prop_assert!(signed.verify(b"policy", None).is_err());
    }
}

/// Loads a file that must be signed as `signed` says; the error if it is not in force.
async fn load(file: &Path, signed: Signed) -> Result<(), String> {
    let kernel = LocalKernel::new(
        Some(Base::file(file).signed(signed)),
        std::time::Duration::from_secs(30),
    );
    let outcome = kernel.reload().await;
    assert_eq!(outcome.is_ok(), kernel.policy().is_some());
    assert_eq!(outcome.is_ok(), !kernel.snapshots().await.unwrap().is_empty());
    outcome.map(drop).map_err(|error| chain(&error))
}

#[tokio::test]
async fn only_what_is_signed_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("safety.yaml");
    std::fs::write(&file, POLICY).unwrap();
    let pair = key_pair(1);
    let signed = || Signed::by(public(&pair));
    let signature = pair.sign(POLICY.as_bytes()).as_ref().to_vec();
    let by_another = key_pair(2).sign(POLICY.as_bytes()).as_ref().to_vec();
    let of_another = pair.sign(b"version: v2\n").as_ref().to_vec();
    let mismatch = "load safety policy: policy signature verification failed";

    for (text, expected) in [
        (hex(&signature), Ok(())),
        (STANDARD.encode(&signature), Ok(())),
        (STANDARD.encode(&by_another), Err(mismatch.to_owned())),
        (hex(&of_another), Err(mismatch.to_owned())),
        (hex(&[0; 64]), Err(mismatch.to_owned())),
    ] {
        let outcome = load(&file, signed().with_signature(text.parse().unwrap())).await;
        assert_eq!(outcome, expected, "{text}");
    }

    let beside = folder.path().join("safety.yaml.sig");
    let missing = load(&file, signed()).await.unwrap_err();
    assert_eq!(missing, "load safety policy: policy signature required but not found");
    for bytes in [
        signature.clone(),
        format!("{}\n", hex(&signature)).into_bytes(),
        format!("{}\n", STANDARD.encode(&signature)).into_bytes(),
    ] {
        std::fs::write(&beside, bytes).unwrap();
        load(&file, signed()).await.unwrap();
        load(&file, signed().with_signature_file(&beside)).await.unwrap();
    }
    for (bytes, says) in [
        (by_another, "verification failed"),
        (vec![0xff; 63], "63 bytes instead of 64"),
        (vec![], "neither hex nor base64"),
        (b"no signature".to_vec(), "safety.yaml.sig: invalid signature encoding"),
    ] {
        std::fs::write(&beside, bytes).unwrap();
        let error = load(&file, signed()).await.unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_policy_that_loses_its_signature_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("safety.yaml");
    let pair = key_pair(3);
    std::fs::write(&file, POLICY).unwrap();
    std::fs::write(folder.path().join("safety.yaml.sig"), pair.sign(POLICY.as_bytes())).unwrap();
    let base = Base::file(&file).signed(Signed::by(public(&pair)));
    let kernel = LocalKernel::new(Some(base), std::time::Duration::from_secs(30));
    kernel.reload().await.unwrap();
    let snapshot = kernel.status().snapshot;

    std::fs::write(&file, "version: forged\n").unwrap();
    kernel.reload().await.unwrap_err();
    let status = kernel.status();
    assert_eq!(status.snapshot, snapshot);
    assert!(status.last_error.unwrap().contains("verification failed"));
    assert!(status.sources[0].ok && status.sources[0].detail.contains("stays in force"));

    let text = b"version: v2\n";
    std::fs::write(&file, text).unwrap();
    std::fs::write(folder.path().join("safety.yaml.sig"), pair.sign(text)).unwrap();
    assert!(kernel.reload().await.unwrap());
    assert!(kernel.status().snapshot.unwrap().starts_with("v2:"));
}
