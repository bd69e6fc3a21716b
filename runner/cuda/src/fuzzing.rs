//! Entry points for the fuzz targets in `tests/fuzz`: the parsers of a guest's module images. A violated property is a
//! panic.

use crate::image::{self, Format};
use crate::parameters;

/// Takes bytes as an image: PTX, a cubin, or a fatbin of those.
///
/// # Panics
///
/// If a part of a fatbin lies outside it, or a layout is inconsistent.
pub fn image(bytes: &[u8]) {
    let whole = bytes.as_ptr_range();
    let mut end = whole.start;
    for part in image::fatbin_parts(bytes) {
        let place = part.as_ptr_range();
        assert!(
            place.start >= end && place.end <= whole.end,
            "a part lies outside"
        );
        assert!(matches!(image::format(part), Format::Elf | Format::Text));
        end = place.end;
    }
    // The parsers must also bear images that the check rejects.
    let is_complete = image::check(bytes).is_ok();
    for name in names(bytes) {
        layouts(bytes, &name);
    }
    if is_complete && image::format(bytes) == Format::Text {
        text(bytes);
    }
}

/// Kernel names that occur in the image.
fn names(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let of = |mark: &str| -> Vec<String> {
        let pieces = text.split(mark).skip(1).take(3);
        pieces
            .map(|after| {
                let own = after.trim_start();
                let is_name = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '$' | '%');
                own.chars().take_while(is_name).collect()
            })
            .collect()
    };
    [of(".entry"), of(".nv.info."), vec!["k".to_owned()]].concat()
}

fn layouts(bytes: &[u8], name: &str) {
    if let Some(layout) = parameters::from_image(bytes, name) {
        parameters::check(&layout);
    }
}

/// Comments between words do not change a layout.
fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if text.contains('/') {
        return;
    }
    let commented = text.replace(' ', "/* { .entry k( */\t// }\n");
    for name in names(bytes) {
        let found = parameters::from_image(commented.as_bytes(), &name);
        assert_eq!(
            found,
            parameters::from_image(bytes, &name),
            "comments matter to {name:?}"
        );
    }
}
