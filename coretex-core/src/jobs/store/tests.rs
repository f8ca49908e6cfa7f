use proptest::prelude::*;

use super::*;

#[test]
fn older_clients_send_bare_times() {
    let cursor: Cursor = "1795358581660672".parse().unwrap();
    assert_eq!((cursor.at.micros(), cursor.id.as_str()), (1_795_358_581_660_672, ""));
    for text in ["", "x", "1.*", "1.é", ".YQ", "99999999999999999999"] {
        assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn cursors_survive(micros in any::<i64>(), id in ".{0,12}") {
        let cursor = Cursor { at: Timestamp::from_micros(micros), id };
        prop_assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
    }

    #[test]
    fn arbitrary_texts_do_not_panic(text in "\\PC{0,30}|-?[0-9]{1,20}(\\.[A-Za-z0-9_=-]{0,8})?") {
        let _ = text.parse::<Cursor>();
    }
}
