//! Refuses tables and active element segments with which no instance can be made.
//!
//! Element segments stay in the module, unlike data segments ([`crate::lift`]): the runner applies them to each
//! instance. Whether they fit depends on nothing but the module, so that it is found out here.

use std::path::Path;

use crate::constant::Constants;
use crate::error::{Error, InstantiationTrap};
use crate::module::Module;

/// Most elements that the tables of a module can begin with, all together.
///
/// wasmer keeps a record of 32 bytes for each element of a table that cannot grow inside of the instance, and
/// compiled code adds offsets there as positive 32-bit numbers (`VMOffsets` of wasmer-types 7.4.2): 2 GiB is the end,
/// and this half of it. A single table has at most 128 Mi elements there (`TABLE_MAX_SIZE` of wasmer-vm).
pub(crate) const MOST_ELEMENTS: u64 = 1 << 25;

/// Checks the tables and active element segments of a validated module.
///
/// # Errors
///
/// [`Error::TooManyElements`]; [`Error::ElementOutside`] for a segment that would trap in every instance;
/// [`Error::ElementOffset`] for one whose offset depends on an imported global, which nothing provides.
pub(crate) fn check(path: &Path, module: &Module<'_>) -> Result<(), Error> {
    let elements = module.tables.iter().copied().fold(0, u64::saturating_add);
    if elements > MOST_ELEMENTS {
        return Err(Error::TooManyElements {
            path: path.into(),
            elements,
        });
    }
    let constants = Constants::of(module);
    for elements in &module.elements {
        let (segment, table) = (elements.segment, elements.table);
        let offset = constants.offset(&elements.offset);
        let offset = offset.ok_or_else(|| Error::ElementOffset {
            path: path.into(),
            segment,
        })?;
        let length = u64::from(elements.length);
        let size = module.tables.get(table as usize).copied().unwrap_or(0);
        if offset + length > size {
            return Err(Error::ElementOutside {
                path: path.into(),
                segment,
                table,
                offset,
                length,
                size,
                source: InstantiationTrap::Table,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> String {
        let wasm = wat::parse_str(text).expect("the text is correct");
        let module = Module::parse(&wasm).expect("it is well formed");
        let checked = check(Path::new("a.wasm"), &module);
        checked.map_or_else(|error| error.report(), |()| "accepted".into())
    }

    #[test]
    fn segments_must_fit_their_tables() {
        for (fields, expected) in [
            ("(table 2 funcref) (elem (i32.const 0) $f $f)", "accepted"),
            ("(table 2 funcref) (elem (i32.const 2))", "accepted"),
            (
                "(table 2 funcref) (elem (i32.const 3))",
                "element segment 0 of a.wasm writes 0 elements at 3, but table 0 has 2",
            ),
            (
                "(table 2 9 funcref) (elem (i32.const 0) $f) (elem (i32.const 1) $f $f)",
                "element segment 1 of a.wasm writes 2 elements at 1, but table 0 has 2",
            ),
            (
                "(table 2 funcref) (elem (i32.const -1) $f)",
                "writes 1 elements at 4294967295",
            ),
            (
                "(table 5 funcref) (table $t 1 externref)
                 (elem (table $t) (i32.const 1) externref (ref.null extern))",
                "writes 1 elements at 1, but table 1 has 1",
            ),
            (
                "(table 2 funcref) (elem (offset (i32.add (i32.const 1) (i32.const 1))) $f)",
                "writes 1 elements at 2",
            ),
            // Neither is applied to a table before the module runs.
            (
                "(table 1 funcref) (elem func $f $f $f) (elem declare func $f)",
                "accepted",
            ),
        ] {
            let report = report(&format!("(module (func $f) {fields})"));
            assert!(report.contains(expected), "{fields}: {report}");
            let trap = "\n  wasm trap: out of bounds table access\n";
            assert_eq!(report.contains(trap), expected != "accepted", "{report}");
        }
        let imported = report(
            r#"(module (import "m" "t" (table 1 funcref)) (import "m" "g" (global $g i32)) (table $t 4 funcref)
                (func $f) (elem (table $t) (i32.const 3) func $f) (elem (table $t) (global.get $g) func $f))"#,
        );
        let expected = "element segment 1 of a.wasm has an offset that is not known";
        assert!(imported.contains(expected), "{imported}");
    }

    #[test]
    fn tables_must_have_room_in_an_instance() {
        let most = report("(module (table 33554431 funcref) (table 1 funcref))");
        assert_eq!(most, "accepted");
        for tables in [
            "(table 33554432 funcref) (table 1 externref)",
            "(table 4294967295 4294967295 funcref)",
        ] {
            let report = report(&format!("(module {tables})"));
            let expected = "the tables of a.wasm begin with";
            assert!(report.contains(expected), "{tables}: {report}");
        }
    }
}
